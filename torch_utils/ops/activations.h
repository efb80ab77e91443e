// The rules of bias_act for one element: value, first and second derivative. Shared by the C++ and the CUDA kernels.
//
//     y = clamp(gain * act(z), -limit, limit),   z = scale * x + noise + bias
//
// T is the type to compute in: float (also for half-precision tensors) or double. A negative limit means none; any other has
// been rounded to the tensors' type, or a clamped result, read again, would seem to lie inside.
// Must not know about tensors, memory layouts, devices or PyTorch.

#pragma once

#include <cmath>

#ifdef __CUDACC__
#define MADR_RULE __host__ __device__ inline
#else
#define MADR_RULE inline
#endif

namespace activations {

// In the order of bias_act.activation_funcs; Python passes the position in that order.
enum Kind : int { kLinear, kRelu, kLrelu, kTanh, kSigmoid, kElu, kSelu, kSoftplus, kSwish, kNumKinds };

// Piecewise linear, and rising where 0 <= alpha: the result's sign is the argument's, so that the result alone tells the slope.
MADR_RULE constexpr bool is_piecewise_linear(Kind kind) { return kind == kLinear || kind == kRelu || kind == kLrelu; }

// Of SELU (arXiv 1706.02515, equation 2), which has a fixed point of mean 0 and variance 1 with these two numbers.
template <typename T>
struct Selu {
  static constexpr T scale = T(1.0507009873554804934193349852946);
  static constexpr T alpha = T(1.6732632423543772848170429916717);
};

// From here on log(1 + exp(z)) is z in the eyes of torch.nn.functional.softplus.
constexpr int kSoftplusLinearFrom = 20;

template <typename T>
MADR_RULE T logistic(T z) {
  return T(1) / (T(1) + std::exp(-z));
}

// act(z). NaN comes out as NaN: comparisons are written such that it takes the branch that keeps it.
template <Kind kind, typename T>
MADR_RULE T value(T z, T alpha) {
  if constexpr (kind == kLinear) return z;
  if constexpr (kind == kRelu) return z < T(0) ? T(0) : z;
  if constexpr (kind == kLrelu) return z > T(0) ? z : z * alpha;
  if constexpr (kind == kTanh) return std::tanh(z);
  if constexpr (kind == kSigmoid) return logistic(z);
  if constexpr (kind == kElu) return z > T(0) ? z : std::expm1(z);
  if constexpr (kind == kSelu) return Selu<T>::scale * (z > T(0) ? z : Selu<T>::alpha * std::expm1(z));
  if constexpr (kind == kSoftplus) return z > T(kSoftplusLinearFrom) ? z : std::log1p(std::exp(z));
  if constexpr (kind == kSwish) return z * logistic(z);
}

// act'(z). At a kink it is the slope on the left, as in PyTorch. For a piecewise linear kind z may be any number of the same sign.
template <Kind kind, typename T>
MADR_RULE T slope(T z, T alpha) {
  if constexpr (kind == kLinear) return T(1);
  if constexpr (kind == kRelu) return z > T(0) ? T(1) : T(0);
  if constexpr (kind == kLrelu) return z > T(0) ? T(1) : alpha;
  if constexpr (kind == kTanh) {
    const T t = std::tanh(z);
    return T(1) - t * t;
  }
  if constexpr (kind == kSigmoid) {
    const T s = logistic(z);
    return s * (T(1) - s);
  }
  if constexpr (kind == kElu) return z > T(0) ? T(1) : std::exp(z);
  if constexpr (kind == kSelu) return Selu<T>::scale * (z > T(0) ? T(1) : Selu<T>::alpha * std::exp(z));
  if constexpr (kind == kSoftplus) return z > T(kSoftplusLinearFrom) ? T(1) : logistic(z);
  if constexpr (kind == kSwish) {
    const T s = logistic(z);
    return s * (T(1) + z * (T(1) - s));
  }
}

// act''(z); 0 for the piecewise linear kinds.
template <Kind kind, typename T>
MADR_RULE T curvature(T z) {
  if constexpr (is_piecewise_linear(kind)) return T(0);
  if constexpr (kind == kTanh) {
    const T t = std::tanh(z);
    return T(-2) * t * (T(1) - t * t);
  }
  if constexpr (kind == kSigmoid) {
    const T s = logistic(z);
    return s * (T(1) - s) * (T(1) - T(2) * s);
  }
  if constexpr (kind == kElu) return z > T(0) ? T(0) : std::exp(z);
  if constexpr (kind == kSelu) return z > T(0) ? T(0) : Selu<T>::scale * Selu<T>::alpha * std::exp(z);
  if constexpr (kind == kSoftplus) {
    const T s = logistic(z);
    return z > T(kSoftplusLinearFrom) ? T(0) : s * (T(1) - s);
  }
  if constexpr (kind == kSwish) {
    const T s = logistic(z);
    return s * (T(1) - s) * (T(2) + z * (T(1) - T(2) * s));
  }
}

// Whether a result before clamping lies inside the limits, so that a gradient passes. On the limit none does.
template <typename T>
MADR_RULE bool passes(T y, T limit) {
  return limit < T(0) || (y > -limit && y < limit) || y != y;
}

// What an operator needs besides its tensors.
template <typename T>
struct Settings {
  T alpha, gain, limit;
};

// y of z.
template <Kind kind, typename T>
MADR_RULE T result(T z, const Settings<T>& with) {
  const T y = with.gain * value<kind>(z, with.alpha);
  if (with.limit < T(0)) return y;
  return y < -with.limit ? -with.limit : (y > with.limit ? with.limit : y);
}

// dy/dz at z.
template <Kind kind, typename T>
MADR_RULE T first_derivative(T z, const Settings<T>& with) {
  return passes(with.gain * value<kind>(z, with.alpha), with.limit) ? with.gain * slope<kind>(z, with.alpha) : T(0);
}

// d2y/dz2 at z.
template <Kind kind, typename T>
MADR_RULE T second_derivative(T z, const Settings<T>& with) {
  return passes(with.gain * value<kind>(z, with.alpha), with.limit) ? with.gain * curvature<kind>(z) : T(0);
}

// dy/dz read off y, for the piecewise linear kinds with gain > 0 and 0 <= alpha: z need not be kept.
template <Kind kind, typename T>
MADR_RULE T first_derivative_from_result(T y, const Settings<T>& with) {
  static_assert(is_piecewise_linear(kind), "the result of this activation does not tell its slope");
  return passes(y, with.limit) ? with.gain * slope<kind>(y, with.alpha) : T(0);
}

}  // namespace activations
