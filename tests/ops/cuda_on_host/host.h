// Lets a C++ compiler read the CUDA sources: a kernel becomes a function that is called once per thread, one thread after the other.
// Included before everything else. The toolkit's own headers supply the number formats.

#pragma once

#include <cuda_runtime.h>

#include <cstring>

struct Coordinate {
  unsigned x;
};
inline Coordinate blockIdx, threadIdx, gridDim;

namespace formats {

template <typename... Parameters, typename... Arguments>
cudaError_t run_on_host(void (*kernel)(Parameters...), unsigned blocks, cudaStream_t, const Arguments&... arguments) {
  constexpr unsigned kThreads = 256;
  gridDim.x = blocks;
  for (blockIdx.x = 0; blockIdx.x < blocks; ++blockIdx.x) {
    for (threadIdx.x = 0; threadIdx.x < kThreads; ++threadIdx.x) kernel(arguments...);
  }
  return cudaSuccess;
}

}  // namespace formats

#define __launch_bounds__(threads)
#define cudaMemsetAsync(pointer, value, count, stream) (std::memset(pointer, value, count), cudaSuccess)
