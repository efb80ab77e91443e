// bias_act and its derivatives on CUDA devices: one pass over memory each. The rules per element stand in activations.h, the way
// through memory in bias_act_walk.h; this file moves numbers and chooses among instances.

#include "activations.h"
#include "bias_act_walk.h"
#include "kernel_formats.h"
#include "kernel_launch.h"

namespace {

using activations::Kind;
using activations::Settings;
using formats::kLanes;
using formats::kThreadsPerBlock;
using formats::Pack;

// --- kernels ----------------------------------------------------------------------------------------------------------

// Every thread handles `lanes` neighbours, then those one step of all threads further on. With packs they are moved in one piece.
template <typename Function>
__device__ void for_each_group(int64_t count, int lanes, Function&& function) {
  const int64_t step = int64_t(gridDim.x) * kThreadsPerBlock * lanes;
  for (int64_t first = (int64_t(blockIdx.x) * kThreadsPerBlock + threadIdx.x) * lanes; first + lanes <= count; first += step) function(first);
}

template <typename Scalar>
struct Beside {
  const Scalar *bias, *scale, *noise;  // each may be null
};

template <typename Format, Kind kind, int lanes>
__global__ void __launch_bounds__(kThreadsPerBlock)
    activate_kernel(const typename Format::Scalar* __restrict__ x, Beside<typename Format::Scalar> beside, typename Format::Scalar* __restrict__ out,
                    int64_t count, walk::Sizes sizes, walk::Cursor way, Settings<typename Format::Sum> settings) {
  using Scalar = typename Format::Scalar;
  using Sum = typename Format::Sum;
  walk::Cursor group = walk::at((int64_t(blockIdx.x) * kThreadsPerBlock + threadIdx.x) * lanes, sizes);
  for_each_group(count, lanes, [&](int64_t first) {
    Pack<Scalar, lanes> pack = *reinterpret_cast<const Pack<Scalar, lanes>*>(x + first);
    walk::Cursor cursor = group;
#pragma unroll
    for (int lane = 0; lane < lanes; ++lane) {
      Sum z = Format::load(pack.at[lane]);
      if (beside.scale != nullptr) z *= Format::load(beside.scale[cursor.image_channel(sizes)]);
      if (beside.noise != nullptr) z += Format::load(beside.noise[cursor.image_pixel(sizes)]);
      if (beside.bias != nullptr) z += Format::load(beside.bias[cursor.channel(sizes)]);
      pack.at[lane] = Format::store(activations::result<kind>(z, settings));
      walk::next(cursor, sizes);
    }
    *reinterpret_cast<Pack<Scalar, lanes>*>(out + first) = pack;
    walk::jump(group, way, sizes);
  });
}

// What the gradient is multiplied by.
enum class Factor { kFirst, kFirstFromResult, kSecond };

template <Kind kind, Factor factor, typename Sum>
__device__ Sum factor_at(Sum reference, const Settings<Sum>& settings) {
  if constexpr (factor == Factor::kFirstFromResult) return activations::first_derivative_from_result<kind>(reference, settings);
  if constexpr (factor == Factor::kFirst) return activations::first_derivative<kind>(reference, settings);
  if constexpr (factor == Factor::kSecond) return activations::second_derivative<kind>(reference, settings);
}

template <typename Format, Kind kind, Factor factor, int lanes>
__global__ void __launch_bounds__(kThreadsPerBlock)
    derivative_kernel(const typename Format::Scalar* __restrict__ gradient, const typename Format::Scalar* __restrict__ reference,
                      typename Format::Scalar* __restrict__ out, int64_t count, Settings<typename Format::Sum> settings) {
  using Group = Pack<typename Format::Scalar, lanes>;
  for_each_group(count, lanes, [&](int64_t first) {
    Group pack = *reinterpret_cast<const Group*>(gradient + first);
    const Group at = *reinterpret_cast<const Group*>(reference + first);
#pragma unroll
    for (int lane = 0; lane < lanes; ++lane) {
      pack.at[lane] = Format::store(Format::load(pack.at[lane]) * factor_at<kind, factor>(Format::load(at.at[lane]), settings));
    }
    *reinterpret_cast<Group*>(out + first) = pack;
  });
}

// --- choosing ---------------------------------------------------------------------------------------------------------

// with_kind calls function(KindIs<kind>{}) for a kind that is known only now; with_format likewise.
template <Kind kind_>
struct KindIs {
  static constexpr Kind kind = kind_;
};

template <typename Function>
cudaError_t with_kind(int kind, Function&& function) {
  switch (kind) {
    case activations::kLinear: return function(KindIs<activations::kLinear>{});
    case activations::kRelu: return function(KindIs<activations::kRelu>{});
    case activations::kLrelu: return function(KindIs<activations::kLrelu>{});
    case activations::kTanh: return function(KindIs<activations::kTanh>{});
    case activations::kSigmoid: return function(KindIs<activations::kSigmoid>{});
    case activations::kElu: return function(KindIs<activations::kElu>{});
    case activations::kSelu: return function(KindIs<activations::kSelu>{});
    case activations::kSoftplus: return function(KindIs<activations::kSoftplus>{});
    case activations::kSwish: return function(KindIs<activations::kSwish>{});
    default: return cudaErrorInvalidValue;
  }
}

template <typename Function>
cudaError_t with_format(launch::Format format, Function&& function) {
  switch (format) {
    case launch::Format::kFloat64: return function(formats::Float64{});
    case launch::Format::kFloat32: return function(formats::Float32{});
    case launch::Format::kFloat16: return function(formats::Float16{});
    case launch::Format::kBFloat16: return function(formats::BFloat16{});
  }
  return cudaErrorInvalidValue;
}

template <typename Sum>
Settings<Sum> settings_of(const launch::Activation& activation) {
  return Settings<Sum>{Sum(activation.alpha), Sum(activation.gain), Sum(activation.limit)};
}

template <typename Format, Kind kind>
struct Activate {
  using Scalar = typename Format::Scalar;
  const launch::Activation& activation;
  const Scalar* x;
  Beside<Scalar> beside;
  Scalar* out;
  int64_t count;
  const walk::Sizes& sizes;
  int most_blocks;
  cudaStream_t stream;

  // The elements from `first` on, `lanes` at a time, as many whole groups as there are.
  template <int lanes>
  cudaError_t run() const {
    const unsigned blocks = formats::blocks_for(count / lanes, most_blocks);
    const walk::Cursor way = walk::at(int64_t(blocks) * kThreadsPerBlock * lanes, sizes);
    return formats::start(activate_kernel<Format, kind, lanes>, blocks, stream, x, beside, out, count, sizes, way,
                          settings_of<typename Format::Sum>(activation));
  }

  cudaError_t operator()() const {
    constexpr int lanes = kLanes<Scalar>;
    const bool packs = count % lanes == 0 && formats::is_aligned(x) && formats::is_aligned(out);
    return packs ? run<lanes>() : run<1>();
  }
};

template <typename Format, Kind kind, Factor factor>
cudaError_t multiply(const launch::Activation& activation, const void* gradient, const void* reference, void* out, int64_t count, int most_blocks,
                     cudaStream_t stream) {
  using Scalar = typename Format::Scalar;
  constexpr int lanes = kLanes<Scalar>;
  const auto* from = static_cast<const Scalar*>(gradient);
  const auto* at = static_cast<const Scalar*>(reference);
  auto* to = static_cast<Scalar*>(out);
  const auto settings = settings_of<typename Format::Sum>(activation);
  const bool packs = count % lanes == 0 && formats::is_aligned(gradient) && formats::is_aligned(reference) && formats::is_aligned(out);
  const unsigned blocks = formats::blocks_for(packs ? count / lanes : count, most_blocks);
  if (packs) return formats::start(derivative_kernel<Format, kind, factor, lanes>, blocks, stream, from, at, to, count, settings);
  return formats::start(derivative_kernel<Format, kind, factor, 1>, blocks, stream, from, at, to, count, settings);
}

}  // namespace

cudaError_t launch::activate(Format format, const Activation& activation, const void* x, const void* bias, const void* scale, const void* noise, void* out,
                             int64_t count, const walk::Sizes& sizes, int most_blocks, cudaStream_t stream) {
  if (count == 0) return cudaSuccess;
  return with_format(format, [&](auto which) {
    using F = decltype(which);
    using Scalar = typename F::Scalar;
    return with_kind(activation.kind, [&](auto kind) {
      const Beside<Scalar> beside{static_cast<const Scalar*>(bias), static_cast<const Scalar*>(scale), static_cast<const Scalar*>(noise)};
      return Activate<F, decltype(kind)::kind>{activation, static_cast<const Scalar*>(x), beside, static_cast<Scalar*>(out), count, sizes, most_blocks,
                                               stream}();
    });
  });
}

cudaError_t launch::derivative(Format format, const Activation& activation, const void* gradient, const void* reference, int order, bool from_result,
                               void* out, int64_t count, int most_blocks, cudaStream_t stream) {
  if (count == 0) return cudaSuccess;
  return with_format(format, [&](auto which) {
    using F = decltype(which);
    return with_kind(activation.kind, [&](auto kind_is) {
      constexpr Kind kind = decltype(kind_is)::kind;
      if (order == 1 && !from_result) return multiply<F, kind, Factor::kFirst>(activation, gradient, reference, out, count, most_blocks, stream);
      if constexpr (activations::is_piecewise_linear(kind)) {
        if (order == 1) return multiply<F, kind, Factor::kFirstFromResult>(activation, gradient, reference, out, count, most_blocks, stream);
        if (order == 2) return cudaMemsetAsync(out, 0, count * sizeof(typename F::Scalar), stream);
      } else if (order == 2 && !from_result) {
        return multiply<F, kind, Factor::kSecond>(activation, gradient, reference, out, count, most_blocks, stream);
      }
      return cudaErrorInvalidValue;
    });
  });
}
