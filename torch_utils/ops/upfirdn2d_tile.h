// The index arithmetic of upfirdn2d: which input pixels and which taps a result sums. Everything here runs on host and device
// alike, so that it is tested on a machine without a GPU; the CUDA kernels add nothing but the loop over work items.
//
//     out[o] = gain * sum_t taps[t] * z[o * down + t],   z = in with up - 1 zeros after each pixel, then `before` zeros in front
//
// along each of the two axes. Must not know about PyTorch, devices or number formats.

#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define RESAMPLE_RULE __host__ __device__ __forceinline__
#else
#define RESAMPLE_RULE inline
#endif

namespace resample {

template <typename Index>
struct Axis {
  Index size_in, size_out, taps, up, down, before;  // before < 0 crops
};

// In elements, not bytes.
template <typename Index>
struct Strides {
  Index image, channel, row, column;
};

template <typename Index>
struct Problem {
  Axis<Index> horizontal, vertical;
  Index images, channels;
  Strides<Index> from, to;
  bool channels_last;  // the order in which work items follow one another, for neighbouring threads to touch neighbouring memory
  bool correlate;      // else convolve: the filter is read backwards
};

// What one output sums: inputs first_input, first_input + 1, ... with taps first_tap, first_tap + up, ..., `count` of them.
template <typename Index>
struct Window {
  Index first_input, first_tap, count;
};

template <typename Index>
RESAMPLE_RULE Window<Index> window_of(const Axis<Index>& axis, Index output) {
  // Position of tap 0 in the spread image, where input i lies at i * up.
  const Index start = output * axis.down - axis.before;
  Window<Index> window;
  window.first_input = start <= 0 ? Index(0) : (start + axis.up - 1) / axis.up;
  window.first_tap = window.first_input * axis.up - start;
  const Index taps_left = axis.taps - window.first_tap;
  const Index by_taps = taps_left > 0 ? (taps_left + axis.up - 1) / axis.up : Index(0);
  const Index inputs_left = axis.size_in - window.first_input;
  window.count = inputs_left < by_taps ? inputs_left : by_taps;
  if (window.count < 0) window.count = 0;
  return window;
}

// The filter [vertical.taps, horizontal.taps] at (row, column), in reading order for a correlation.
template <typename Index, typename Sum>
RESAMPLE_RULE Sum tap_at(const Problem<Index>& problem, const Sum* filter, Index row, Index column) {
  const Index rows = problem.vertical.taps, columns = problem.horizontal.taps;
  const Index place = row * columns + column;
  return filter[problem.correlate ? place : rows * columns - 1 - place];
}

// Coordinates of a work item: a tile of outputs in one image, of one channel or of several neighbouring ones.
template <typename Index>
struct Place {
  Index image, channel, row, column;
};

// Items count columns fastest, or channels in channels-last memory. `channels` counts groups of channels.
template <typename Index>
RESAMPLE_RULE Place<Index> place_of(Index item, bool channels_last, Index channels, Index rows, Index columns) {
  Place<Index> place;
  if (channels_last) {
    place.channel = item % channels;
    item /= channels;
  }
  place.column = item % columns;
  item /= columns;
  place.row = item % rows;
  item /= rows;
  if (!channels_last) {
    place.channel = item % channels;
    item /= channels;
  }
  place.image = item;
  return place;
}

template <typename Index>
RESAMPLE_RULE Index ceil_div(Index a, Index b) {
  return (a + b - 1) / b;
}

// --- any factors, any filter: one output per item ---------------------------------------------------------------------

template <typename Index>
RESAMPLE_RULE Index any_items(const Problem<Index>& problem) {
  return problem.images * problem.channels * problem.vertical.size_out * problem.horizontal.size_out;
}

// Format: how a number in memory becomes one to compute with: Scalar, Sum, static Sum load(Scalar), static Scalar store(Sum).
template <typename Format, typename Index>
RESAMPLE_RULE void any_item(const Problem<Index>& problem, const typename Format::Scalar* in, const typename Format::Sum* filter,
                            typename Format::Scalar* out, typename Format::Sum gain, Index item) {
  using Sum = typename Format::Sum;
  const Place<Index> at = place_of(item, problem.channels_last, problem.channels, problem.vertical.size_out, problem.horizontal.size_out);
  const Window<Index> rows = window_of(problem.vertical, at.row);
  const Window<Index> columns = window_of(problem.horizontal, at.column);
  const Index corner = at.image * problem.from.image + at.channel * problem.from.channel + rows.first_input * problem.from.row +
                       columns.first_input * problem.from.column;
  Sum sum = Sum(0);
  for (Index y = 0; y < rows.count; ++y) {
    for (Index x = 0; x < columns.count; ++x) {
      const Sum tap = tap_at(problem, filter, rows.first_tap + y * problem.vertical.up, columns.first_tap + x * problem.horizontal.up);
      sum += tap * Format::load(in[corner + y * problem.from.row + x * problem.from.column]);
    }
  }
  out[at.image * problem.to.image + at.channel * problem.to.channel + at.row * problem.to.row + at.column * problem.to.column] =
      Format::store(sum * gain);
}

// --- factors and taps known to the compiler: a tile of outputs per item ------------------------------------------------

// A tile begins where tap 0 of its first output lies `up - 1` before an input, so that the same taps meet the same inputs of the
// patch in every tile, whatever the padding. The first tile may begin before output 0; what lies outside is not written.
// up, down, taps and the tile's sides are those of both axes; lanes: neighbouring channels, in one piece of memory.
template <int up_, int down_, int taps_, int rows_, int columns_, int lanes_>
struct Shape {
  static constexpr int up = up_, down = down_, taps = taps_, rows = rows_, columns = columns_, lanes = lanes_;
  static_assert(up == 1 || down == 1, "with both factors above 1, outputs repeat their phase otherwise");
  static_assert(rows % up == 0 && columns % up == 0, "every tile must begin in the same phase");
  static constexpr int lead = up - 1;
  static constexpr int patch_rows = ((rows - 1) * down + taps - 1 - lead) / up + 1;
  static constexpr int patch_columns = ((columns - 1) * down + taps - 1 - lead) / up + 1;
};

// How many outputs before output 0 the first tile begins: the least k >= 0 with (before + k * down) = lead modulo up.
template <typename S, typename Index>
RESAMPLE_RULE Index lead_in(const Axis<Index>& axis) {
  const Index phase = (axis.before % S::up + S::up) % S::up;
  return (S::lead - phase + S::up) % S::up;  // down is 1 wherever up is not
}

template <typename S, typename Index>
RESAMPLE_RULE Index tile_rows(const Problem<Index>& problem) {
  return ceil_div(problem.vertical.size_out + lead_in<S>(problem.vertical), Index(S::rows));
}

template <typename S, typename Index>
RESAMPLE_RULE Index tile_columns(const Problem<Index>& problem) {
  return ceil_div(problem.horizontal.size_out + lead_in<S>(problem.horizontal), Index(S::columns));
}

template <typename S, typename Index>
RESAMPLE_RULE Index tile_items(const Problem<Index>& problem) {
  return problem.images * (problem.channels / S::lanes) * tile_rows<S>(problem) * tile_columns<S>(problem);
}

// The place in the patch, along one axis, of the input that `tap` meets for `output` of the tile; -1 for an inserted zero.
template <typename S>
RESAMPLE_RULE constexpr int patch_place(int output, int tap) {
  const int position = output * S::down + tap - S::lead;
  return position >= 0 && position % S::up == 0 ? position / S::up : -1;
}

// Adds the patch's pixel (y, x) to all outputs of the tile that it reaches. Unrolled, the conditions are known to the compiler.
template <typename S, typename Format, typename Pack>
RESAMPLE_RULE void add_pixel(const Pack& pixel, int y, int x, const typename Format::Sum (&filter)[S::taps * S::taps],
                             typename Format::Sum (&sums)[S::rows][S::columns][S::lanes]) {
#pragma unroll
  for (int r = 0; r < S::rows; ++r) {
#pragma unroll
    for (int c = 0; c < S::columns; ++c) {
#pragma unroll
      for (int tap = 0; tap < S::taps * S::taps; ++tap) {
        if (patch_place<S>(r, tap / S::taps) == y && patch_place<S>(c, tap % S::taps) == x) {
#pragma unroll
          for (int lane = 0; lane < S::lanes; ++lane) sums[r][c][lane] += filter[tap] * Format::load(pixel.at[lane]);
        }
      }
    }
  }
}

// Pack: `lanes` numbers in one piece of memory, Scalar at[lanes]. filter: S::taps * S::taps numbers in the order of a correlation,
// the gain in them, in registers.
template <typename S, typename Format, typename Pack, typename Index>
RESAMPLE_RULE void tile_item(const Problem<Index>& problem, const typename Format::Scalar* in,
                             const typename Format::Sum (&filter)[S::taps * S::taps], typename Format::Scalar* out, Index item) {
  using Sum = typename Format::Sum;
  const Index groups = problem.channels / S::lanes;
  const Place<Index> tile = place_of(item, problem.channels_last, groups, tile_rows<S>(problem), tile_columns<S>(problem));
  const Index channel = tile.channel * S::lanes;
  const Index out_row = tile.row * S::rows - lead_in<S>(problem.vertical);
  const Index out_column = tile.column * S::columns - lead_in<S>(problem.horizontal);
  // Both divisions leave no remainder.
  const Index in_row = (out_row * S::down - problem.vertical.before + S::lead) / S::up;
  const Index in_column = (out_column * S::down - problem.horizontal.before + S::lead) / S::up;
  const typename Format::Scalar* source = in + (tile.image * problem.from.image + channel * problem.from.channel);

  Sum sums[S::rows][S::columns][S::lanes] = {};
#pragma unroll
  for (int y = 0; y < S::patch_rows; ++y) {
    // A row of the patch at once, so that its loads wait for memory together; outside the image are zeros.
    const Index row = in_row + y;
    Pack pixels[S::patch_columns];
#pragma unroll
    for (int x = 0; x < S::patch_columns; ++x) {
      const Index column = in_column + x;
      const bool inside = row >= 0 && row < problem.vertical.size_in && column >= 0 && column < problem.horizontal.size_in;
      pixels[x] = inside ? *reinterpret_cast<const Pack*>(source + (row * problem.from.row + column * problem.from.column)) : Pack{};
    }
#pragma unroll
    for (int x = 0; x < S::patch_columns; ++x) add_pixel<S, Format>(pixels[x], y, x, filter, sums);
  }

  typename Format::Scalar* target = out + (tile.image * problem.to.image + channel * problem.to.channel);
#pragma unroll
  for (int r = 0; r < S::rows; ++r) {
#pragma unroll
    for (int c = 0; c < S::columns; ++c) {
      const Index row = out_row + r, column = out_column + c;
      if (row < 0 || row >= problem.vertical.size_out || column < 0 || column >= problem.horizontal.size_out) continue;
      Pack pixel;
#pragma unroll
      for (int lane = 0; lane < S::lanes; ++lane) pixel.at[lane] = Format::store(sums[r][c][lane]);
      *reinterpret_cast<Pack*>(target + (row * problem.to.row + column * problem.to.column)) = pixel;
    }
  }
}

// --- which of them ----------------------------------------------------------------------------------------------------

// The largest distance in elements that the strides reach, and every number that the arithmetic above passes through.
inline int64_t largest_index(const Problem<int64_t>& problem) {
  const auto reach = [&problem](const Strides<int64_t>& strides, int64_t rows, int64_t columns) {
    const int64_t within = (rows - 1) * strides.row + (columns - 1) * strides.column;
    return (problem.images - 1) * strides.image + (problem.channels - 1) * strides.channel + within;
  };
  const Axis<int64_t>&h = problem.horizontal, &v = problem.vertical;
  int64_t largest = any_items(problem);
  const auto see = [&largest](int64_t number) { largest = number > largest ? number : largest; };
  see(reach(problem.from, v.size_in, h.size_in));
  see(reach(problem.to, v.size_out, h.size_out));
  for (const Axis<int64_t>* axis : {&h, &v}) {
    const int64_t before = axis->before < 0 ? -axis->before : axis->before;
    see((axis->size_in + axis->taps) * axis->up + (axis->size_out + axis->taps) * axis->down + before);
  }
  see(h.taps * v.taps);
  return largest;
}

template <typename To, typename From>
inline Problem<To> with_index(const Problem<From>& p) {
  const auto axis = [](const Axis<From>& a) { return Axis<To>{To(a.size_in), To(a.size_out), To(a.taps), To(a.up), To(a.down), To(a.before)}; };
  const auto strides = [](const Strides<From>& s) { return Strides<To>{To(s.image), To(s.channel), To(s.row), To(s.column)}; };
  const auto from = strides(p.from), to = strides(p.to);
  return Problem<To>{axis(p.horizontal), axis(p.vertical), To(p.images), To(p.channels), from, to, p.channels_last, p.correlate};
}

// Indices of 32 bits are used up to here: a loop's counter must not overflow on its last step, which adds the number of threads.
constexpr int64_t kMostThreads = int64_t(1) << 28;
constexpr int64_t kNarrowIndexBelow = (int64_t(1) << 31) - kMostThreads;

}  // namespace resample
