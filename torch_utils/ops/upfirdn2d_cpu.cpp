// Resampling by a separable FIR filter on the CPU, in one pass over memory.
//
// Along one axis: y[o] = sum_t taps[t] * z[o * down + t - before], where z is x with up - 1 zeros after each pixel and 0 outside.
// An output row is made from the input rows that meet a tap (first one weighted sum of rows, then the taps along the row). Zeros
// are never multiplied: of the taps, each output takes those that meet a pixel (polyphase).

#include "cpu_tools.h"

#include <type_traits>

namespace {

// How one axis is resampled. What depends on the place of an output alone is worked out once.
template <typename T>
struct Axis {
  // The taps that meet a pixel at one output: the first of them, how many follow at distance `up`, and the first one's pixel.
  struct Meeting {
    int64_t tap, count, pixel;
  };

  // Outputs phase, phase + up, ...: an ordinary filter with the taps tap, tap + up, ..., the first of them at pixel `pixel`.
  struct Phase {
    int64_t tap, num_taps, pixel, num_outputs;
  };

  std::vector<T> taps;
  int64_t up, down, before, size_in, size_out;
  std::vector<Meeting> meetings;
  std::vector<Phase> phases;  // where down is 1

  Axis(const double* numbers, int64_t num_taps, int64_t up, int64_t down, int64_t before, int64_t size_in, int64_t size_out)
      : taps(numbers, numbers + num_taps), up(up), down(down), before(before), size_in(size_in), size_out(size_out) {
    for (int64_t o = 0; o < size_out; ++o) meetings.push_back(meeting(o));
    for (int64_t phase = 0; down == 1 && phase < std::min(up, size_out); ++phase) {
      const int64_t tap = first_tap(phase - before);
      phases.push_back({tap, std::max<int64_t>((num_taps - tap + up - 1) / up, 0), (phase + tap - before) / up, (size_out - phase + up - 1) / up});
    }
  }

  // The same for an image that goes on beyond its borders.
  Meeting unbounded_meeting(int64_t at) const {
    const int64_t place = at * down - before, tap = first_tap(place);
    return {tap, std::max<int64_t>((int64_t(taps.size()) - tap + up - 1) / up, 0), (place + tap) / up};
  }

 private:
  // The first tap that meets a pixel and no inserted zero, with tap 0 at `place` of the spread image.
  int64_t first_tap(int64_t place) const { return ((-place) % up + up) % up; }

  Meeting meeting(int64_t at) const {
    auto [tap, by_taps, pixel] = unbounded_meeting(at);
    if (pixel < 0) {
      tap -= pixel * up;
      pixel = 0;
    }
    by_taps = (int64_t(taps.size()) - tap + up - 1) / up;
    const int64_t count = std::min(by_taps, size_in - pixel);
    return count > 0 ? Meeting{tap, count, pixel} : Meeting{0, 0, 0};
  }
};

// out [count] = sum over the taps that meet a row, of rows of x at distance `stride`.
template <typename S, typename T>
void weigh_rows(T* out, const S* x, int64_t stride, int64_t count, const Axis<T>& axis, int64_t at) {
  const auto& meeting = axis.meetings[at];
  const T* taps = axis.taps.data() + meeting.tap;
  const S* row = x + meeting.pixel * stride;
  int64_t k = 0;
  if (meeting.count >= 4) {
    const T a = taps[0], b = taps[axis.up], c = taps[2 * axis.up], d = taps[3 * axis.up];
    for (int64_t i = 0; i < count; ++i)
      out[i] = a * cpu::load(row + i) + b * cpu::load(row + stride + i) + c * cpu::load(row + 2 * stride + i) + d * cpu::load(row + 3 * stride + i);
    k = 4;
  } else if (meeting.count >= 2) {
    const T a = taps[0], b = taps[axis.up];
    for (int64_t i = 0; i < count; ++i) out[i] = a * cpu::load(row + i) + b * cpu::load(row + stride + i);
    k = 2;
  } else {
    std::fill(out, out + count, T(0));
  }
  for (; k < meeting.count; ++k) {
    const T tap = taps[k * axis.up];
    const S* source = row + k * stride;
    for (int64_t i = 0; i < count; ++i) out[i] += tap * cpu::load(source + i);
  }
}

// out [count] = sum_k taps[k * step] * x[k ... k + count), for one phase of the output.
template <typename T>
void fir(T* out, const T* x, const T* taps, int64_t step, int64_t num_taps, int64_t count) {
  if (num_taps == 4) {
    const T a = taps[0], b = taps[step], c = taps[2 * step], d = taps[3 * step];
    for (int64_t i = 0; i < count; ++i) out[i] = a * x[i] + b * x[i + 1] + c * x[i + 2] + d * x[i + 3];
    return;
  }
  if (num_taps == 2) {
    const T a = taps[0], b = taps[step];
    for (int64_t i = 0; i < count; ++i) out[i] = a * x[i] + b * x[i + 1];
    return;
  }
  std::fill(out, out + count, T(0));
  for (int64_t k = 0; k < num_taps; ++k)
    for (int64_t i = 0; i < count; ++i) out[i] += taps[k * step] * x[k + i];
}

template <typename S, typename T>
void store_row(S* out, const T* row, int64_t count) {
  for (int64_t i = 0; i < count; ++i) cpu::store(out + i, row[i]);
}

// The taps along a row of single pixels. One object per thread: it owns the intermediate rows.
//
// row() is where the caller writes the weighted sum of rows; around it are zeros, so that no tap needs to be checked.
template <typename T>
class RowFilter {
 public:
  explicit RowFilter(const Axis<T>& axis) : axis_(axis), margin_(int64_t(axis.taps.size()) + std::max<int64_t>(axis.before, 0)) {
    const int64_t reach = ((axis.size_out + 2) * axis.down + int64_t(axis.taps.size()) - axis.before) / axis.up + axis.down;
    padded_.assign(margin_ + std::max(axis.size_in, reach) + 2, T(0));
    phases_.assign((axis.size_out / axis.up + 1) * axis.up, T(0));
    parts_.assign(axis.down * longest_part() + axis.size_out, T(0));
  }

  T* row() { return padded_.data() + margin_; }

  template <typename S>
  void write(S* out) {
    if (axis_.down == 1) return enlarge(out);
    if (axis_.up == 1) return shrink(out);
    for (int64_t o = 0; o < axis_.size_out; ++o) {
      const auto& meeting = axis_.meetings[o];
      T sum = 0;
      for (int64_t k = 0; k < meeting.count; ++k) sum += axis_.taps[meeting.tap + k * axis_.up] * row()[meeting.pixel + k];
      cpu::store(out + o, sum);
    }
  }

 private:
  // Each of the `up` phases of the output is an ordinary filter with every up-th tap.
  template <typename S>
  void enlarge(S* out) {
    const int64_t up = axis_.up, longest = axis_.size_out / up + 1;
    T* filtered = phases_.data();
    for (const auto& phase : axis_.phases) {
      fir(filtered, row() + phase.pixel, axis_.taps.data() + phase.tap, up, phase.num_taps, phase.num_outputs);
      filtered += longest;
    }
    const T* phases = phases_.data();
    if (up == 1) return store_row(out, phases, axis_.size_out);
    if (up == 2) {
      const int64_t pairs = axis_.size_out / 2;
      for (int64_t i = 0; i < pairs; ++i) {
        cpu::store(out + 2 * i, phases[i]);
        cpu::store(out + 2 * i + 1, phases[longest + i]);
      }
      if (axis_.size_out % 2) cpu::store(out + axis_.size_out - 1, phases[pairs]);
      return;
    }
    for (int64_t o = 0; o < axis_.size_out; ++o) cpu::store(out + o, phases[o % up * longest + o / up]);
  }

  // The row is parted into `down` rows of every down-th pixel; the taps are parted likewise, and the filtered parts added.
  template <typename S>
  void shrink(S* out) {
    const int64_t down = axis_.down, num_taps = int64_t(axis_.taps.size());
    const T* start = row() - axis_.before;
    const int64_t longest = longest_part();
    if (down == 2) {
      for (int64_t i = 0; i < longest; ++i) {
        parts_[i] = start[2 * i];
        parts_[longest + i] = start[2 * i + 1];
      }
    } else {
      for (int64_t part = 0; part < down; ++part)
        for (int64_t i = 0; i < longest; ++i) parts_[part * longest + i] = start[i * down + part];
    }
    T* sum = parts_.data() + down * longest;
    const T* taps = axis_.taps.data();
    if (down == 2 && num_taps == 4) {
      const T *even = parts_.data(), *odd = even + longest;
      for (int64_t i = 0; i < axis_.size_out; ++i) sum[i] = taps[0] * even[i] + taps[1] * odd[i] + taps[2] * even[i + 1] + taps[3] * odd[i + 1];
    } else {
      std::fill(sum, sum + axis_.size_out, T(0));
      for (int64_t t = 0; t < num_taps; ++t) {
        const T* part = parts_.data() + t % down * longest + t / down;
        for (int64_t i = 0; i < axis_.size_out; ++i) sum[i] += taps[t] * part[i];
      }
    }
    store_row(out, sum, axis_.size_out);
  }

  int64_t longest_part() const { return axis_.size_out + (int64_t(axis_.taps.size()) + axis_.down - 1) / axis_.down; }

  const Axis<T>& axis_;
  int64_t margin_;
  std::vector<T> padded_, phases_, parts_;
};

template <typename S, typename T>
void resample_planes(S* y, const S* x, int64_t planes, const Axis<T>& along_y, const Axis<T>& along_x) {
  const int64_t size_in = along_y.size_in * along_x.size_in, size_out = along_y.size_out * along_x.size_out;
  cpu::in_parallel(planes, size_out * 4, [&](int64_t first, int64_t last) {
    RowFilter<T> filter(along_x);
    for (int64_t plane = first; plane < last; ++plane) {
      for (int64_t o = 0; o < along_y.size_out; ++o) {
        weigh_rows(filter.row(), x + plane * size_in, along_x.size_in, along_x.size_in, along_y, o);
        filter.write(y + plane * size_out + o * along_x.size_out);
      }
    }
  });
}

constexpr int kBlock = 16;  // channels at once where they lie side by side

// out [width] = sum over k < count of taps[k * step] * x[k * stride ...]. A width and a count that the compiler knows fill its registers.
template <int known_width, int known_count, typename S, typename T>
void weigh_block(S* out, const T* x, int64_t stride, int64_t width, const T* taps, int64_t step, int64_t count) {
  if constexpr (known_width > 0) width = known_width;
  if constexpr (known_count > 0) count = known_count;
  T sum[kBlock];
  const T first = taps[0];
#pragma omp simd
  for (int64_t c = 0; c < width; ++c) sum[c] = first * x[c];
  for (int64_t k = 1; k < count; ++k) {
    const T tap = taps[k * step];
    const T* source = x + k * stride;
#pragma omp simd
    for (int64_t c = 0; c < width; ++c) sum[c] += tap * source[c];
  }
#pragma omp simd
  for (int64_t c = 0; c < width; ++c) cpu::store(out + c, sum[c]);
}

template <int known_count, typename S, typename T>
void weigh_blocks(S* out, const T* x, int64_t stride, int64_t width, const T* taps, int64_t step, int64_t count) {
  int64_t c = 0;
  for (; c + kBlock <= width; c += kBlock) weigh_block<kBlock, known_count>(out + c, x + c, stride, kBlock, taps, step, count);
  if (c < width) weigh_block<0, known_count>(out + c, x + c, stride, width - c, taps, step, count);
}

// The taps along a row of pixels whose channels lie side by side. One object per thread: it owns the intermediate row.
//
// row() is where the caller writes the weighted sum of rows; around it are zeros, so that no tap needs to be checked.
template <typename T>
class PixelFilter {
 public:
  PixelFilter(const Axis<T>& axis, int64_t channels) : axis_(axis), channels_(channels) {
    int64_t first = 0, last = axis.size_in;
    for (int64_t o = 0; o < axis.size_out; ++o) {
      const auto meeting = axis.unbounded_meeting(o);
      places_.push_back(meeting);
      first = std::min(first, meeting.pixel);
      last = std::max(last, meeting.pixel + meeting.count);
    }
    margin_ = -first * channels;
    padded_.assign((last - first) * channels, T(0));
  }

  T* row() { return padded_.data() + margin_; }

  template <typename S>
  void write(S* out) {
    if (axis_.up == 1 && axis_.down == 1) return weigh(out, places_[0], axis_.size_out * channels_);  // all outputs have the same taps
    for (int64_t o = 0; o < axis_.size_out; ++o) weigh(out + o * channels_, places_[o], channels_);
  }

 private:
  template <typename S>
  void weigh(S* out, const typename Axis<T>::Meeting& at, int64_t width) {
    const T *x = row() + at.pixel * channels_, *taps = axis_.taps.data() + at.tap;
    if (at.count == 4) return weigh_blocks<4>(out, x, channels_, width, taps, axis_.up, 4);
    if (at.count == 2) return weigh_blocks<2>(out, x, channels_, width, taps, axis_.up, 2);
    if (at.count > 0) return weigh_blocks<0>(out, x, channels_, width, taps, axis_.up, at.count);
    for (int64_t c = 0; c < width; ++c) cpu::store(out + c, T(0));
  }

  const Axis<T>& axis_;
  int64_t channels_, margin_;
  std::vector<T> padded_;
  std::vector<typename Axis<T>::Meeting> places_;
};

template <typename S, typename T>
void resample_pixels(S* y, const S* x, int64_t images, int64_t channels, const Axis<T>& along_y, const Axis<T>& along_x) {
  const int64_t row_in = along_x.size_in * channels, row_out = along_x.size_out * channels;
  cpu::in_parallel(images * along_y.size_out, row_out * 4, [&](int64_t first, int64_t last) {
    PixelFilter<T> filter(along_x, channels);
    for (int64_t item = first; item < last; ++item) {
      const int64_t n = item / along_y.size_out;
      weigh_rows(filter.row(), x + n * along_y.size_in * row_in, row_in, row_in, along_y, item % along_y.size_out);
      filter.write(y + item * row_out);
    }
  });
}

// What Python tells of one axis.
struct AxisNumbers {
  unsigned long long taps;
  long long num_taps, up, down, before, size_in, size_out;

  template <typename T>
  Axis<T> axis() const {
    return Axis<T>(cpu::pointer<const double>(taps), num_taps, up, down, before, size_in, size_out);
  }
};

}  // namespace

PyObject* upfirdn2d_resample(PyObject*, PyObject* arguments) {
  unsigned long long y, x;
  long long images, channels;
  int is_planes, element_type;
  AxisNumbers of_y, of_x;
  if (!PyArg_ParseTuple(arguments, "KKLLpi(KLLLLLL)(KLLLLLL)", &y, &x, &images, &channels, &is_planes, &element_type,  //
                        &of_y.taps, &of_y.num_taps, &of_y.up, &of_y.down, &of_y.before, &of_y.size_in, &of_y.size_out,  //
                        &of_x.taps, &of_x.num_taps, &of_x.up, &of_x.down, &of_x.before, &of_x.size_in, &of_x.size_out))
    return nullptr;
  return cpu::run([&] {
    cpu::with_element_type(element_type, [&](auto element) {
      using S = decltype(element);
      using T = typename cpu::ComputeType<S>::type;
      const auto along_y = of_y.axis<T>(), along_x = of_x.axis<T>();
      if (is_planes) return resample_planes(cpu::pointer<S>(y), cpu::pointer<const S>(x), images * channels, along_y, along_x);
      resample_pixels(cpu::pointer<S>(y), cpu::pointer<const S>(x), images, channels, along_y, along_x);
    });
  });
}
