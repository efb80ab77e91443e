// The functions of kernel_launch.h under plain names, for ctypes; and the arithmetic of the headers by itself.

#include "kernel_launch.h"

using resample::Axis;
using resample::Problem;

namespace {

// 24 numbers: size_in, size_out, taps, up, down, before of the horizontal axis, then of the vertical one; images, channels;
// image, channel, row, column strides of the input, then of the result; channels_last; correlate.
Problem<int64_t> problem_of(const int64_t* n) {
  const Axis<int64_t> horizontal{n[0], n[1], n[2], n[3], n[4], n[5]}, vertical{n[6], n[7], n[8], n[9], n[10], n[11]};
  return {horizontal, vertical, n[12], n[13], {n[14], n[15], n[16], n[17]}, {n[18], n[19], n[20], n[21]}, n[22] != 0, n[23] != 0};
}

}  // namespace

extern "C" {

int activate(int format, int kind, double alpha, double gain, double limit, const void* x, const void* bias, const void* scale, const void* noise,
             void* out, int64_t count, int64_t middle, int64_t inner, int channel_is_inner, int most_blocks) {
  const walk::Sizes sizes{middle, inner, channel_is_inner != 0};
  return launch::activate(launch::Format(format), {kind, alpha, gain, limit}, x, bias, scale, noise, out, count, sizes, most_blocks, nullptr);
}

int derivative(int format, int kind, double alpha, double gain, double limit, const void* gradient, const void* reference, int order, int from_result,
               void* out, int64_t count, int most_blocks) {
  return launch::derivative(launch::Format(format), {kind, alpha, gain, limit}, gradient, reference, order, from_result != 0, out, count, most_blocks,
                            nullptr);
}

int upfirdn2d(int format, const int64_t* numbers, const void* in, const void* filter, void* out, double gain, int most_blocks) {
  return launch::upfirdn2d(launch::Format(format), problem_of(numbers), in, filter, out, gain, most_blocks, nullptr);
}

// The same sums in 64-bit indices and without tiles, whatever the size.
void upfirdn2d_wide(const int64_t* numbers, const double* in, const double* filter, double* out, double gain) {
  struct Format {
    using Scalar = double;
    using Sum = double;
    static double load(double x) { return x; }
    static double store(double x) { return x; }
  };
  const Problem<int64_t> problem = problem_of(numbers);
  for (int64_t item = 0; item < resample::any_items(problem); ++item) resample::any_item<Format>(problem, in, filter, out, gain, item);
}

int needs_wide_index(const int64_t* numbers) { return resample::largest_index(problem_of(numbers)) >= resample::kNarrowIndexBelow; }

// first input, first tap, count that output `output` of the axis (size_in, size_out, taps, up, down, before) sums.
void window(const int64_t* axis, int64_t output, int narrow, int64_t* result) {
  const Axis<int64_t> wide{axis[0], axis[1], axis[2], axis[3], axis[4], axis[5]};
  if (narrow) {
    const Axis<int32_t> small{int(axis[0]), int(axis[1]), int(axis[2]), int(axis[3]), int(axis[4]), int(axis[5])};
    const auto found = resample::window_of(small, int32_t(output));
    result[0] = found.first_input, result[1] = found.first_tap, result[2] = found.count;
  } else {
    const auto found = resample::window_of(wide, output);
    result[0] = found.first_input, result[1] = found.first_tap, result[2] = found.count;
  }
}

// channel, place in scale, place in noise: of the element at `offset` and of its neighbour, then of those `distance` further on, and so
// on, `steps` times, without another division.
void walk_along(int64_t middle, int64_t inner, int channel_is_inner, int64_t offset, int64_t distance, int64_t steps, int64_t* result) {
  const walk::Sizes sizes{middle, inner, channel_is_inner != 0};
  const walk::Cursor way = walk::at(distance, sizes);
  walk::Cursor cursor = walk::at(offset, sizes);
  const auto tell = [&](const walk::Cursor& at) {
    *result++ = at.channel(sizes);
    *result++ = at.image_channel(sizes);
    *result++ = at.image_pixel(sizes);
  };
  for (int64_t step = 0; step < steps; ++step) {
    tell(cursor);
    walk::Cursor neighbour = cursor;
    walk::next(neighbour, sizes);
    tell(neighbour);
    walk::jump(cursor, way, sizes);
  }
}
}
