// What the PyTorch side of the CUDA kernels may call: plain numbers and pointers into the memory of the current device. Each call
// puts one kernel on `stream` and returns at once with its launch error. Must not know about PyTorch, whose headers nvcc would
// take minutes to read.

#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "bias_act_walk.h"
#include "upfirdn2d_tile.h"

namespace launch {

enum class Format : int { kFloat64, kFloat32, kFloat16, kBFloat16 };

struct Activation {
  int kind;                   // of activations::Kind
  double alpha, gain, limit;  // limit < 0: none
};

// out = clamp(gain * act(scale * x + noise + bias)), where bias [channels], scale [images, channels] and noise [images, pixels] may be null.
cudaError_t activate(Format format, const Activation& activation, const void* x, const void* bias, const void* scale, const void* noise, void* out,
                     int64_t count, const walk::Sizes& sizes, int most_blocks, cudaStream_t stream);

// out = gradient * (order 1: dy/dz, order 2: d2y/dz2) at z = reference, or where y = reference if from_result.
cudaError_t derivative(Format format, const Activation& activation, const void* gradient, const void* reference, int order, bool from_result,
                       void* out, int64_t count, int most_blocks, cudaStream_t stream);

// filter: [vertical.taps, horizontal.taps], one after the other, of float64 for Format::kFloat64, else of float32.
cudaError_t upfirdn2d(Format format, const resample::Problem<int64_t>& problem, const void* in, const void* filter, void* out, double gain,
                      int most_blocks, cudaStream_t stream);

}  // namespace launch
