// bias_act on the CPU: y = clamp(gain * act(scale * x + noise + b)) and its derivatives, each in one pass over memory.
//
// Tensors are seen as N images of C channels and P pixels, in one of two orders in memory:
//     planes   [N][C][P]   contiguous
//     pixels   [N][P][C]   channels-last, and every tensor whose last axis has the bias
// Sums are made in parts of fixed size and added in a fixed order: results do not depend on the number of threads.

#include "activations.h"
#include "cpu_tools.h"

namespace {

using activations::Kind;
using activations::Settings;

constexpr int64_t kPixelsPerPart = 1024;
constexpr int kBlock = 16;             // channels at once where they lie side by side
constexpr int64_t kPixelsAtOnce = 64;  // through all blocks of channels, so that they stay in the cache

struct Sizes {
  int64_t images, channels, pixels;
  bool is_planes;

  int64_t parts() const { return (pixels + kPixelsPerPart - 1) / kPixelsPerPart; }
};

// ------------------------------------------------------------------------------------------
// Rules as objects. The loops are compiled for two of them: the piecewise linear kinds, which are all lrelu with a slope of
// their own and which the compiler vectorises, and a curved kind behind a pointer, whose exponential dwarfs the call.

enum Order : int { kValue, kFromResult, kFirst, kSecond };

bool is_piecewise_linear(int kind) { return activations::is_piecewise_linear(Kind(kind)); }

template <Order order, typename T>
struct PiecewiseRule {
  Settings<T> with;

  PiecewiseRule(int kind, Settings<T> given) : with(given) {
    if (kind == activations::kLinear) with.alpha = T(1);
    if (kind == activations::kRelu) with.alpha = T(0);
  }

  T operator()(T at) const {
    if constexpr (order == kValue) return activations::result<activations::kLrelu>(at, with);
    if constexpr (order == kFromResult) return activations::first_derivative_from_result<activations::kLrelu>(at, with);
    if constexpr (order == kFirst) return activations::first_derivative<activations::kLrelu>(at, with);
    return T(0);
  }
};

template <Order order, typename T>
struct CurvedRule {
  using Function = T (*)(T, const Settings<T>&);
  Settings<T> with;
  Function function;

  CurvedRule(int kind, Settings<T> given) : with(given), function(find<activations::kTanh>(kind)) {}

  T operator()(T at) const { return function(at, with); }

 private:
  template <int kind>
  static Function find(int wanted) {
    if constexpr (kind == activations::kNumKinds) {
      throw std::invalid_argument("unknown activation");
    } else {
      constexpr Kind rule = Kind(kind);
      if (wanted != kind) return find<kind + 1>(wanted);
      if constexpr (order == kValue) return &activations::result<rule, T>;
      if constexpr (order == kFirst) return &activations::first_derivative<rule, T>;
      if constexpr (order == kSecond) return &activations::second_derivative<rule, T>;
      throw std::invalid_argument("the result of this activation does not tell its slope");
    }
  }
};

// Call function(rule) with the object for this activation.
template <Order order, typename T, typename Function>
void with_rule(int kind, const Settings<T>& with, Function&& function) {
  if (is_piecewise_linear(kind)) return function(PiecewiseRule<order, T>(kind, with));
  if constexpr (order != kFromResult) return function(CurvedRule<order, T>(kind, with));
  throw std::invalid_argument("the result of this activation does not tell its slope");
}

template <typename Function>
void with_bool(bool wanted, Function&& function) {
  if (wanted) return function(std::true_type{});
  return function(std::false_type{});
}

// ------------------------------------------------------------------------------------------
// Value.

template <bool has_noise, typename S, typename T, typename Rule>
void activate_row(S* y, const S* x, const S* noise, T scale, T bias, int64_t count, const Rule& rule) {
  for (int64_t p = 0; p < count; ++p) {
    T z = scale * cpu::load(x + p);
    if constexpr (has_noise) z += cpu::load(noise + p);
    cpu::store(y + p, rule(z + bias));
  }
}

// Channels [0, width) of the pixels [begin, end), which belong to one image. A width that the compiler knows fills its registers, and
// what it computes on are copies: of an argument it would have to assume that the result might be written over it.
template <int known_width, typename S, typename T, typename Rule>
void activate_block(S* y, const S* x, const S* noise, const T* scale, const T* bias, int64_t begin, int64_t end, int64_t channels, int64_t width, const Rule& rule) {
  if constexpr (known_width > 0) width = known_width;
  const Rule own_rule = rule;
  T factor[kBlock], addend[kBlock], result[kBlock];
  std::copy(scale, scale + width, factor);
  std::copy(bias, bias + width, addend);
  for (int64_t pixel = begin; pixel < end; ++pixel) {
    const int64_t at = pixel * channels;
    const T added = noise ? cpu::load(noise + pixel) : T(0);
#pragma omp simd
    for (int64_t c = 0; c < width; ++c) result[c] = own_rule(factor[c] * cpu::load(x + at + c) + added + addend[c]);
#pragma omp simd
    for (int64_t c = 0; c < width; ++c) cpu::store(y + at + c, result[c]);
  }
}

template <typename S, typename T, typename Rule>
void activate_pixels(S* y, const S* x, const S* noise, const T* scale, const T* bias, int64_t begin, int64_t end, int64_t channels, const Rule& rule) {
  int64_t c = 0;
  for (; c + kBlock <= channels; c += kBlock)
    activate_block<kBlock>(y + c, x + c, noise, scale + c, bias + c, begin, end, channels, kBlock, rule);
  if (c < channels) activate_block<0>(y + c, x + c, noise, scale + c, bias + c, begin, end, channels, channels - c, rule);
}

template <typename S, typename Rule>
void activate(S* y, const S* x, const S* b, const S* scale, const S* noise, const Sizes& size, const Rule& rule) {
  using T = typename cpu::ComputeType<S>::type;
  const auto bias = cpu::to_vector<S>(b, size.channels, T(0));
  const auto factor = cpu::to_vector<S>(scale, scale ? size.images * size.channels : size.channels, T(1));
  const auto factors_of = [&](int64_t n) { return factor.data() + (scale ? n * size.channels : 0); };
  if (size.is_planes) {
    with_bool(noise != nullptr, [&](auto has_noise) {
      cpu::in_parallel(size.images * size.channels, size.pixels, [&](int64_t first, int64_t last) {
        for (int64_t plane = first; plane < last; ++plane) {
          const int64_t n = plane / size.channels, c = plane % size.channels, at = plane * size.pixels;
          const S* noise_row = noise ? noise + n * size.pixels : nullptr;
          activate_row<has_noise.value>(y + at, x + at, noise_row, factors_of(n)[c], bias[c], size.pixels, rule);
        }
      });
    });
    return;
  }
  cpu::in_parallel(size.images * size.pixels, size.channels, [&](int64_t first, int64_t last) {
    for (int64_t begin = first; begin < last;) {
      const int64_t n = begin / size.pixels, end = std::min({last, (n + 1) * size.pixels, begin + kPixelsAtOnce});
      activate_pixels(y, x, noise, factors_of(n), bias.data(), begin, end, size.channels, rule);
      begin = end;
    }
  });
}

// ------------------------------------------------------------------------------------------
// Derivatives by element: gradient * dy/dz or gradient * d2y/dz2.

template <typename S, typename Rule>
void derivative(S* out, const S* gradient, const S* reference, int64_t count, const Rule& rule) {
  cpu::in_parallel(count, 1, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) cpu::store(out + i, cpu::load(gradient + i) * rule(cpu::load(reference + i)));
  });
}

// ------------------------------------------------------------------------------------------
// The whole backward pass of a piecewise linear activation: the gradient of x, and the sums for bias, scale and noise.

template <typename T>
using FromResult = PiecewiseRule<kFromResult, T>;

// Where the sums of one part go: one number per channel, one per pixel. Null: not wanted.
template <typename T>
struct PartSums {
  T* bias;
  T* scale;
  T* noise;
};

template <bool wants_noise, bool wants_scale, typename S, typename T>
void backward_row(S* to_x, const S* gradient, const S* y, const S* x, T scale, int64_t count, int64_t c, const PartSums<T>& sums, const FromResult<T>& slope) {
  T sum = 0, product = 0;
#pragma omp simd reduction(+ : sum, product)
  for (int64_t p = 0; p < count; ++p) {
    const T dz = cpu::load(gradient + p) * slope(cpu::load(y + p));
    cpu::store(to_x + p, dz * scale);
    sum += dz;
    if constexpr (wants_scale) product += dz * cpu::load(x + p);
    if constexpr (wants_noise) sums.noise[p] += dz;
  }
  if (sums.bias) sums.bias[c] = sum;
  if constexpr (wants_scale) sums.scale[c] = product;
}

template <typename S>
struct Backward {
  S* to_x;
  S* to_b;
  S* to_scale;
  S* to_noise;
  const S* gradient;
  const S* y;
  const S* x;
  const S* scale;

  // The same, with what has one number per element beginning `offset` elements later.
  Backward from(int64_t offset) const { return {to_x + offset, to_b, to_scale, to_noise, gradient + offset, y + offset, x + offset, scale}; }
};

// Channels [0, width) of `count` pixels from `begin` on; all pointers of `of` at the first of these channels.
template <int known_width, bool wants_noise, bool wants_scale, typename S, typename T>
void backward_block(const Backward<S>& of, const T* scale, int64_t begin, int64_t count, int64_t channels, int64_t width, const PartSums<T>& sums,
                    const FromResult<T>& slope) {
  if constexpr (known_width > 0) width = known_width;
  const FromResult<T> own_slope = slope;
  T factor[kBlock], dz[kBlock] = {}, bias_sum[kBlock] = {}, scale_sum[kBlock] = {};
  std::copy(scale, scale + width, factor);
  for (int64_t p = 0; p < count; ++p) {
    const int64_t at = (begin + p) * channels;
#pragma omp simd
    for (int64_t c = 0; c < width; ++c) dz[c] = cpu::load(of.gradient + at + c) * own_slope(cpu::load(of.y + at + c));
#pragma omp simd
    for (int64_t c = 0; c < width; ++c) bias_sum[c] += dz[c];
    if constexpr (wants_scale)
#pragma omp simd
      for (int64_t c = 0; c < width; ++c) scale_sum[c] += dz[c] * cpu::load(of.x + at + c);
#pragma omp simd
    for (int64_t c = 0; c < width; ++c) cpu::store(of.to_x + at + c, dz[c] * factor[c]);
    if constexpr (wants_noise) {  // by halves: a sum from left to right would wait for every addition
      for (int half = kBlock / 2; half > 0; half /= 2)
#pragma omp simd
        for (int c = 0; c < half; ++c) dz[c] += dz[c + half];
      sums.noise[p] += dz[0];
    }
  }
  std::copy(bias_sum, bias_sum + width, sums.bias);
  if constexpr (wants_scale) std::copy(scale_sum, scale_sum + width, sums.scale);
}

template <bool wants_noise, bool wants_scale, typename S, typename T>
void backward_pixels(const Backward<S>& of, const T* scale, int64_t begin, int64_t count, int64_t channels, const PartSums<T>& sums, const FromResult<T>& slope) {
  for (int64_t c = 0; c < channels; c += kBlock) {
    const int64_t width = std::min<int64_t>(kBlock, channels - c);
    const PartSums<T> sums_of{sums.bias + c, wants_scale ? sums.scale + c : nullptr, sums.noise};
    const auto backward = width == kBlock ? &backward_block<kBlock, wants_noise, wants_scale, S, T> : &backward_block<0, wants_noise, wants_scale, S, T>;
    backward(of.from(c), scale + c, begin, count, channels, width, sums_of, slope);
  }
}

// One part: up to kPixelsPerPart pixels of one image, all channels.
template <bool wants_noise, bool wants_scale, typename S, typename T>
void backward_part(const Backward<S>& of, const T* scale, int64_t n, int64_t begin, int64_t count, const Sizes& size, const PartSums<T>& sums,
                   const FromResult<T>& slope) {
  if (!size.is_planes) return backward_pixels<wants_noise, wants_scale>(of, scale, n * size.pixels + begin, count, size.channels, sums, slope);
  for (int64_t c = 0; c < size.channels; ++c) {
    const Backward<S> row = of.from((n * size.channels + c) * size.pixels + begin);
    backward_row<wants_noise, wants_scale>(row.to_x, row.gradient, row.y, row.x, scale[c], count, c, sums, slope);
  }
}

// sums [rows][groups][count] -> out [groups][count], over the rows, in order.
template <typename S, typename T>
void add_rows(S* out, const std::vector<T>& sums, int64_t rows, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    double total = 0;
    for (int64_t row = 0; row < rows; ++row) total += double(sums[row * count + i]);
    cpu::store(out + i, T(total));
  }
}

template <bool wants_noise, bool wants_scale, typename S, typename T>
void backward(const Backward<S>& of, const Sizes& size, const FromResult<T>& slope) {
  const int64_t parts = size.parts(), channels = size.channels;
  const auto factor = cpu::to_vector<S>(of.scale, of.scale ? size.images * channels : channels, T(1));
  std::vector<T> bias_sums(size.images * parts * channels), scale_sums(wants_scale ? bias_sums.size() : 0);
  cpu::in_parallel(size.images * parts, std::min(size.pixels, kPixelsPerPart) * channels, [&](int64_t first, int64_t last) {
    std::vector<T> noise_sums(kPixelsPerPart);
    for (int64_t item = first; item < last; ++item) {
      const int64_t n = item / parts, begin = item % parts * kPixelsPerPart, count = std::min(kPixelsPerPart, size.pixels - begin);
      const PartSums<T> sums{bias_sums.data() + item * channels, wants_scale ? scale_sums.data() + item * channels : nullptr,
                             wants_noise ? noise_sums.data() : nullptr};
      std::fill(noise_sums.begin(), noise_sums.end(), T(0));
      backward_part<wants_noise, wants_scale>(of, factor.data() + (of.scale ? n * channels : 0), n, begin, count, size, sums, slope);
      if constexpr (wants_noise) {
        for (int64_t p = 0; p < count; ++p) cpu::store(of.to_noise + n * size.pixels + begin + p, noise_sums[p]);
      }
    }
  });
  if (of.to_b) add_rows(of.to_b, bias_sums, size.images * parts, channels);
  if constexpr (wants_scale) {
    for (int64_t n = 0; n < size.images; ++n) {
      const std::vector<T> of_image(scale_sums.begin() + n * parts * channels, scale_sums.begin() + (n + 1) * parts * channels);
      add_rows(of.to_scale + n * channels, of_image, parts, channels);
    }
  }
}

// The limit is what a tensor can hold of it: else a clamped result, read again, would seem to lie inside.
template <typename S, typename T = typename cpu::ComputeType<S>::type>
Settings<T> settings(double alpha, double gain, double limit) {
  S held;
  cpu::store(&held, T(limit));
  return {T(alpha), T(gain), cpu::load(&held)};
}

}  // namespace

// ------------------------------------------------------------------------------------------
// For Python.

using Address = unsigned long long;

PyObject* bias_act_activate(PyObject*, PyObject* arguments) {
  Address y, x, b, scale, noise;
  long long images, channels, pixels;
  int is_planes, element_type, kind;
  double alpha, gain, limit;
  if (!PyArg_ParseTuple(arguments, "KKKKKLLLpiiddd", &y, &x, &b, &scale, &noise, &images, &channels, &pixels, &is_planes,  //
                        &element_type, &kind, &alpha, &gain, &limit))
    return nullptr;
  return cpu::run([&] {
    cpu::with_element_type(element_type, [&](auto element) {
      using S = decltype(element);
      with_rule<kValue>(kind, settings<S>(alpha, gain, limit), [&](const auto& rule) {
        activate(cpu::pointer<S>(y), cpu::pointer<const S>(x), cpu::pointer<const S>(b), cpu::pointer<const S>(scale), cpu::pointer<const S>(noise),
                 Sizes{images, channels, pixels, is_planes != 0}, rule);
      });
    });
  });
}

PyObject* bias_act_derivative(PyObject*, PyObject* arguments) {
  Address out, gradient, reference;
  long long count;
  int order, element_type, kind;
  double alpha, gain, limit;
  if (!PyArg_ParseTuple(arguments, "KKKLiiiddd", &out, &gradient, &reference, &count, &order, &element_type, &kind, &alpha, &gain, &limit)) return nullptr;
  return cpu::run([&] {
    cpu::with_element_type(element_type, [&](auto element) {
      using S = decltype(element);
      const auto with = settings<S>(alpha, gain, limit);
      const auto by_rule = [&](const auto& rule) { derivative(cpu::pointer<S>(out), cpu::pointer<const S>(gradient), cpu::pointer<const S>(reference), count, rule); };
      if (order == kFromResult) return with_rule<kFromResult>(kind, with, by_rule);
      if (order == kFirst) return with_rule<kFirst>(kind, with, by_rule);
      with_rule<kSecond>(kind, with, by_rule);
    });
  });
}

PyObject* bias_act_backward(PyObject*, PyObject* arguments) {
  Address to_x, to_b, to_scale, to_noise, gradient, y, x, scale;
  long long images, channels, pixels;
  int is_planes, element_type, kind;
  double alpha, gain, limit;
  if (!PyArg_ParseTuple(arguments, "KKKKKKKKLLLpiiddd", &to_x, &to_b, &to_scale, &to_noise, &gradient, &y, &x, &scale, &images, &channels, &pixels,  //
                        &is_planes, &element_type, &kind, &alpha, &gain, &limit))
    return nullptr;
  return cpu::run([&] {
    cpu::with_element_type(element_type, [&](auto element) {
      using S = decltype(element);
      using T = typename cpu::ComputeType<S>::type;
      const Backward<S> of{cpu::pointer<S>(to_x),           cpu::pointer<S>(to_b),    cpu::pointer<S>(to_scale),        cpu::pointer<S>(to_noise),
                           cpu::pointer<const S>(gradient), cpu::pointer<const S>(y), cpu::pointer<const S>(x ? x : y), cpu::pointer<const S>(scale)};
      if (!is_piecewise_linear(kind)) throw std::invalid_argument("the result of this activation does not tell its slope");
      const FromResult<T> slope(kind, settings<S>(alpha, gain, limit));
      with_bool(to_noise != 0, [&](auto wants_noise) {
        with_bool(to_scale != 0, [&](auto wants_scale) {
          backward<wants_noise.value, wants_scale.value>(of, Sizes{images, channels, pixels, is_planes != 0}, slope);
        });
      });
    });
  });
}
