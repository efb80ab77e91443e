// Number formats of the CUDA kernels: how a number in memory becomes one to compute with, and back. Half-precision numbers are
// computed with as float, as PyTorch does. Must not know about PyTorch.

#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace formats {

struct Float64 {
  using Scalar = double;
  using Sum = double;
  __host__ __device__ static Sum load(Scalar x) { return x; }
  __host__ __device__ static Scalar store(Sum x) { return x; }
};

struct Float32 {
  using Scalar = float;
  using Sum = float;
  __host__ __device__ static Sum load(Scalar x) { return x; }
  __host__ __device__ static Scalar store(Sum x) { return x; }
};

struct Float16 {
  using Scalar = __half;
  using Sum = float;
  __host__ __device__ static Sum load(Scalar x) { return __half2float(x); }
  __host__ __device__ static Scalar store(Sum x) { return __float2half_rn(x); }
};

struct BFloat16 {
  using Scalar = __nv_bfloat16;
  using Sum = float;
  __host__ __device__ static Sum load(Scalar x) { return __bfloat162float(x); }
  __host__ __device__ static Scalar store(Sum x) { return __float2bfloat16_rn(x); }
};

// So many numbers as one load or store moves.
template <typename Scalar>
constexpr int kLanes = 16 / sizeof(Scalar);

template <typename Scalar, int lanes>
struct alignas(sizeof(Scalar) * lanes) Pack {
  Scalar at[lanes];
};

inline bool is_aligned(const void* pointer) {
  return reinterpret_cast<std::uintptr_t>(pointer) % 16 == 0;
}

constexpr int kThreadsPerBlock = 256;

// Blocks for a loop over `items` in steps of all threads; no more than keep the card full, and never more than a grid may have.
inline unsigned blocks_for(int64_t items, int most_blocks) {
  const int64_t wanted = (items + kThreadsPerBlock - 1) / kThreadsPerBlock;
  return static_cast<unsigned>(wanted < 1 ? 1 : wanted < most_blocks ? wanted : most_blocks);
}

// Puts kernel(arguments...) on the stream; what is wrong with the launch, or cudaSuccess.
template <typename... Parameters, typename... Arguments>
cudaError_t start(void (*kernel)(Parameters...), unsigned blocks, cudaStream_t stream, const Arguments&... arguments) {
#ifdef __CUDACC__
  kernel<<<blocks, kThreadsPerBlock, 0, stream>>>(arguments...);
  return cudaGetLastError();
#else
  return run_on_host(kernel, blocks, stream, arguments...);  // of the tests, which compile this without nvcc
#endif
}

}  // namespace formats
