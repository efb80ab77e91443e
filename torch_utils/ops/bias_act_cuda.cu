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

// --- the activation, known when compiled or when run -------------------------------------------------------------------

// Each calls function(KindIs<kind>{}). Where numbers move in packs, every kind has kernels of its own; one by one, which is for
// odd counts and addresses, the kind is looked up at every element, for the sake of shorter compiling.
template <Kind kind_>
struct KindIs {
  static constexpr Kind kind = kind_;

#pragma nv_exec_check_disable  // called with functions of the host by the host, of the device by the device
  template <typename Function>
  __host__ __device__ auto operator()(Function&& function) const {
    return function(*this);
  }
};

struct KindLater {
  int kind;

#pragma nv_exec_check_disable  // called with functions of the host by the host, of the device by the device
  template <typename Function>
  __host__ __device__ auto operator()(Function&& function) const {
    switch (kind) {
      case activations::kRelu: return function(KindIs<activations::kRelu>{});
      case activations::kLrelu: return function(KindIs<activations::kLrelu>{});
      case activations::kTanh: return function(KindIs<activations::kTanh>{});
      case activations::kSigmoid: return function(KindIs<activations::kSigmoid>{});
      case activations::kElu: return function(KindIs<activations::kElu>{});
      case activations::kSelu: return function(KindIs<activations::kSelu>{});
      case activations::kSoftplus: return function(KindIs<activations::kSoftplus>{});
      case activations::kSwish: return function(KindIs<activations::kSwish>{});
      default: return function(KindIs<activations::kLinear>{});
    }
  }
};

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

template <typename Format, int lanes, typename Choice>
__global__ void __launch_bounds__(kThreadsPerBlock)
    activate_kernel(Choice choice, const typename Format::Scalar* __restrict__ x, Beside<typename Format::Scalar> beside,
                    typename Format::Scalar* __restrict__ out, int64_t count, walk::Sizes sizes, walk::Cursor way,
                    Settings<typename Format::Sum> settings) {
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
      pack.at[lane] = Format::store(choice([&](auto is) { return activations::result<decltype(is)::kind>(z, settings); }));
      walk::next(cursor, sizes);
    }
    *reinterpret_cast<Pack<Scalar, lanes>*>(out + first) = pack;
    walk::jump(group, way, sizes);
  });
}

// What the gradient is multiplied by. Only piecewise linear kinds have kFirstFromResult, only the others kSecond.
enum class Factor { kFirst, kFirstFromResult, kSecond };

template <Kind kind, Factor factor, typename Sum>
__host__ __device__ Sum factor_at(Sum reference, const Settings<Sum>& settings) {
  if constexpr (factor == Factor::kFirst) return activations::first_derivative<kind>(reference, settings);
  if constexpr (factor == Factor::kSecond) return activations::second_derivative<kind>(reference, settings);
  if constexpr (factor == Factor::kFirstFromResult && activations::is_piecewise_linear(kind)) {
    return activations::first_derivative_from_result<kind>(reference, settings);
  }
  return Sum(0);  // the host has refused it
}

template <typename Format, Factor factor, int lanes, typename Choice>
__global__ void __launch_bounds__(kThreadsPerBlock)
    derivative_kernel(Choice choice, const typename Format::Scalar* __restrict__ gradient, const typename Format::Scalar* __restrict__ reference,
                      typename Format::Scalar* __restrict__ out, int64_t count, Settings<typename Format::Sum> settings) {
  using Group = Pack<typename Format::Scalar, lanes>;
  using Sum = typename Format::Sum;
  for_each_group(count, lanes, [&](int64_t first) {
    Group pack = *reinterpret_cast<const Group*>(gradient + first);
    const Group at = *reinterpret_cast<const Group*>(reference + first);
#pragma unroll
    for (int lane = 0; lane < lanes; ++lane) {
      const Sum reference_here = Format::load(at.at[lane]);
      const Sum slope = choice([&](auto is) { return factor_at<decltype(is)::kind, factor>(reference_here, settings); });
      pack.at[lane] = Format::store(Format::load(pack.at[lane]) * slope);
    }
    *reinterpret_cast<Group*>(out + first) = pack;
  });
}

// --- choosing ---------------------------------------------------------------------------------------------------------

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

// The limit is what a tensor can hold of it: else a clamped result, read again, would seem to lie inside.
template <typename Format>
Settings<typename Format::Sum> settings_of(const launch::Activation& activation) {
  using Sum = typename Format::Sum;
  return {Sum(activation.alpha), Sum(activation.gain), Format::load(Format::store(Sum(activation.limit)))};
}

// Whether numbers can be moved in packs of `lanes`.
template <int lanes, typename... Pointers>
bool in_packs(int64_t count, const Pointers*... pointers) {
  return count % lanes == 0 && (formats::is_aligned(pointers) && ...);
}

template <typename Format>
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

  template <int lanes, typename Choice>
  cudaError_t run(Choice choice) const {
    const unsigned blocks = formats::blocks_for(count / lanes, most_blocks);
    const walk::Cursor way = walk::at(int64_t(blocks) * kThreadsPerBlock * lanes, sizes);
    return formats::start(activate_kernel<Format, lanes, Choice>, blocks, stream, choice, x, beside, out, count, sizes, way,
                          settings_of<Format>(activation));
  }

  cudaError_t operator()() const {
    constexpr int lanes = kLanes<Scalar>;
    const KindLater kind{activation.kind};
    return in_packs<lanes>(count, x, out) ? kind([&](auto is) { return run<lanes>(is); }) : run<1>(kind);
  }
};

template <typename Format>
struct Differentiate {
  using Scalar = typename Format::Scalar;
  const launch::Activation& activation;
  const Scalar *gradient, *reference;
  Scalar* out;
  int64_t count;
  int most_blocks;
  cudaStream_t stream;

  template <Factor factor, int lanes, typename Choice>
  cudaError_t run(Choice choice) const {
    const unsigned blocks = formats::blocks_for(count / lanes, most_blocks);
    return formats::start(derivative_kernel<Format, factor, lanes, Choice>, blocks, stream, choice, gradient, reference, out, count,
                          settings_of<Format>(activation));
  }

  template <Factor factor>
  cudaError_t multiply() const {
    constexpr int lanes = kLanes<Scalar>;
    const KindLater kind{activation.kind};
    if (!in_packs<lanes>(count, gradient, reference, out)) return run<factor, 1>(kind);
    return kind([&](auto is) {
      constexpr bool piecewise = activations::is_piecewise_linear(decltype(is)::kind);
      if constexpr (factor == Factor::kFirst || piecewise == (factor == Factor::kFirstFromResult)) return run<factor, lanes>(is);
      return cudaErrorInvalidValue;
    });
  }

  cudaError_t operator()(int order, bool from_result) const {
    const bool piecewise = KindLater{activation.kind}([](auto is) { return activations::is_piecewise_linear(decltype(is)::kind); });
    if (order == 1 && !from_result) return multiply<Factor::kFirst>();
    if (order == 1 && piecewise) return multiply<Factor::kFirstFromResult>();
    if (order == 2 && piecewise) return cudaMemsetAsync(out, 0, count * sizeof(Scalar), stream);
    if (order == 2 && !from_result) return multiply<Factor::kSecond>();
    return cudaErrorInvalidValue;
  }
};

bool is_known(int kind) { return kind >= 0 && kind < activations::kNumKinds; }

}  // namespace

cudaError_t launch::activate(Format format, const Activation& activation, const void* x, const void* bias, const void* scale, const void* noise,
                             void* out, int64_t count, const walk::Sizes& sizes, int most_blocks, cudaStream_t stream) {
  if (!is_known(activation.kind)) return cudaErrorInvalidValue;
  if (count == 0) return cudaSuccess;
  return with_format(format, [&](auto which) {
    using F = decltype(which);
    using Scalar = typename F::Scalar;
    const Beside<Scalar> beside{static_cast<const Scalar*>(bias), static_cast<const Scalar*>(scale), static_cast<const Scalar*>(noise)};
    return Activate<F>{activation, static_cast<const Scalar*>(x), beside, static_cast<Scalar*>(out), count, sizes, most_blocks, stream}();
  });
}

cudaError_t launch::derivative(Format format, const Activation& activation, const void* gradient, const void* reference, int order, bool from_result,
                               void* out, int64_t count, int most_blocks, cudaStream_t stream) {
  if (!is_known(activation.kind)) return cudaErrorInvalidValue;
  if (count == 0) return cudaSuccess;
  return with_format(format, [&](auto which) {
    using F = decltype(which);
    using Scalar = typename F::Scalar;
    const auto* from = static_cast<const Scalar*>(gradient);
    const auto* at = static_cast<const Scalar*>(reference);
    return Differentiate<F>{activation, from, at, static_cast<Scalar*>(out), count, most_blocks, stream}(order, from_result);
  });
}
