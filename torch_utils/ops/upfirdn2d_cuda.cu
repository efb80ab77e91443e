// upfirdn2d on CUDA devices. A kernel is a loop over the work items of upfirdn2d_tile.h, where all index arithmetic lies; this
// file chooses among its instances. Every axis and factor of StyleGAN2's default filter, [1, 3, 3, 1], has tiles of its own.

#include "kernel_formats.h"
#include "kernel_launch.h"
#include "upfirdn2d_tile.h"

namespace {

using formats::kLanes;
using formats::kThreadsPerBlock;
using formats::Pack;
using resample::Problem;
using resample::Shape;

template <typename Index>
__device__ Index first_item() {
  return Index(blockIdx.x) * kThreadsPerBlock + Index(threadIdx.x);
}

template <typename Index>
__device__ Index item_step() {
  return Index(gridDim.x) * kThreadsPerBlock;
}

template <typename Format, typename Index>
__global__ void __launch_bounds__(kThreadsPerBlock)
    any_kernel(Problem<Index> problem, const typename Format::Scalar* __restrict__ in, const typename Format::Sum* __restrict__ filter,
               typename Format::Scalar* __restrict__ out, typename Format::Sum gain) {
  const Index items = resample::any_items(problem);
  for (Index item = first_item<Index>(); item < items; item += item_step<Index>()) {
    resample::any_item<Format>(problem, in, filter, out, gain, item);
  }
}

template <typename S, typename Format>
__global__ void __launch_bounds__(kThreadsPerBlock)
    tile_kernel(Problem<int32_t> problem, const typename Format::Scalar* __restrict__ in, const typename Format::Sum* __restrict__ filter,
                typename Format::Scalar* __restrict__ out, typename Format::Sum gain) {
  typename Format::Sum taps[S::taps * S::taps];
#pragma unroll
  for (int tap = 0; tap < S::taps * S::taps; ++tap) taps[tap] = gain * resample::tap_at(problem, filter, tap / S::taps, tap % S::taps);
  const int32_t items = resample::tile_items<S>(problem);
  for (int32_t item = first_item<int32_t>(); item < items; item += item_step<int32_t>()) {
    resample::tile_item<S, Format, Pack<typename Format::Scalar, S::lanes>>(problem, in, taps, out, item);
  }
}

// One call: everything that a kernel needs, in the types of a format.
template <typename Format>
struct Call {
  const Problem<int64_t>& problem;
  const typename Format::Scalar* in;
  const typename Format::Sum* filter;
  typename Format::Scalar* out;
  typename Format::Sum gain;
  int most_blocks;
  cudaStream_t stream;

  template <typename Index>
  cudaError_t any() const {
    const unsigned blocks = formats::blocks_for(resample::any_items(problem), most_blocks);
    return formats::start(any_kernel<Format, Index>, blocks, stream, resample::with_index<Index>(problem), in, filter, out, gain);
  }

  template <typename S>
  cudaError_t tiles() const {
    const unsigned blocks = formats::blocks_for(resample::tile_items<S>(problem), most_blocks);
    return formats::start(tile_kernel<S, Format>, blocks, stream, resample::with_index<int32_t>(problem), in, filter, out, gain);
  }

  bool is(int up, int down, int taps) const {
    const auto &h = problem.horizontal, &v = problem.vertical;
    return h.up == up && v.up == up && h.down == down && v.down == down && h.taps == taps && v.taps == taps;
  }

  // Whether whole packs of channels can be moved in and out.
  bool has_packs() const {
    constexpr int64_t lanes = kLanes<typename Format::Scalar>;
    const auto fits = [](const resample::Strides<int64_t>& s) {
      return s.channel == 1 && s.image % lanes == 0 && s.row % lanes == 0 && s.column % lanes == 0;
    };
    return problem.channels % lanes == 0 && fits(problem.from) && fits(problem.to) && formats::is_aligned(in) && formats::is_aligned(out);
  }

  cudaError_t operator()() const {
    if (resample::largest_index(problem) >= resample::kNarrowIndexBelow) return any<int64_t>();
    if constexpr (sizeof(typename Format::Scalar) < 8) {
      constexpr int lanes = kLanes<typename Format::Scalar>;
      const bool packs = problem.channels_last && has_packs();
      if (packs && is(2, 1, 4)) return tiles<Shape<2, 1, 4, 2, 2, lanes>>();
      if (packs && is(1, 2, 4)) return tiles<Shape<1, 2, 4, 1, 1, lanes>>();
      if (packs && is(1, 1, 4)) return tiles<Shape<1, 1, 4, 2, 1, lanes>>();
      if (!problem.channels_last && is(2, 1, 4)) return tiles<Shape<2, 1, 4, 2, 2, 1>>();
      if (!problem.channels_last && is(1, 2, 4)) return tiles<Shape<1, 2, 4, 1, 1, 1>>();
      if (!problem.channels_last && is(1, 1, 4)) return tiles<Shape<1, 1, 4, 4, 1, 1>>();
    }
    return any<int32_t>();
  }
};

template <typename Format>
cudaError_t call(const Problem<int64_t>& problem, const void* in, const void* filter, void* out, double gain, int most_blocks, cudaStream_t stream) {
  using Scalar = typename Format::Scalar;
  using Sum = typename Format::Sum;
  const auto* taps = static_cast<const Sum*>(filter);
  return Call<Format>{problem, static_cast<const Scalar*>(in), taps, static_cast<Scalar*>(out), Sum(gain), most_blocks, stream}();
}

}  // namespace

cudaError_t launch::upfirdn2d(Format format, const Problem<int64_t>& problem, const void* in, const void* filter, void* out, double gain,
                              int most_blocks, cudaStream_t stream) {
  if (resample::any_items(problem) == 0) return cudaSuccess;
  switch (format) {
    case Format::kFloat64:
      return call<formats::Float64>(problem, in, filter, out, gain, most_blocks, stream);
    case Format::kFloat32:
      return call<formats::Float32>(problem, in, filter, out, gain, most_blocks, stream);
    case Format::kFloat16:
      return call<formats::Float16>(problem, in, filter, out, gain, most_blocks, stream);
    case Format::kBFloat16:
      return call<formats::BFloat16>(problem, in, filter, out, gain, most_blocks, stream);
  }
  return cudaErrorInvalidValue;
}
