// Where the elements of a tensor in memory find their entries of bias, scale and noise. A cursor walks through memory without
// dividing at every element, in 64 bits, so that one path serves tensors of every size. Runs on host and device alike, so that it
// is tested on a machine without a GPU. Must not know about PyTorch, devices or number formats.

#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define WALK_RULE __host__ __device__ __forceinline__
#else
#define WALK_RULE inline
#endif

namespace walk {

// Memory as three nested loops, the innermost first to move: (image, channel, pixel) for a contiguous tensor, (image, pixel,
// channel) for a channels-last one.
struct Sizes {
  int64_t middle, inner;
  bool channel_is_inner;

  WALK_RULE int64_t channels() const { return channel_is_inner ? inner : middle; }
  WALK_RULE int64_t pixels() const { return channel_is_inner ? middle : inner; }
};

struct Cursor {
  int64_t outer, middle, inner;

  WALK_RULE int64_t channel(const Sizes& sizes) const { return sizes.channel_is_inner ? inner : middle; }
  WALK_RULE int64_t pixel(const Sizes& sizes) const { return sizes.channel_is_inner ? middle : inner; }
  // Into scale [images, channels].
  WALK_RULE int64_t image_channel(const Sizes& sizes) const { return outer * sizes.channels() + channel(sizes); }
  // Into noise [images, pixels].
  WALK_RULE int64_t image_pixel(const Sizes& sizes) const { return outer * sizes.pixels() + pixel(sizes); }
};

// The cursor at an offset into memory; also the way from one element to the one `offset` further on, see jump.
WALK_RULE Cursor at(int64_t offset, const Sizes& sizes) {
  Cursor cursor;
  cursor.inner = offset % sizes.inner;
  offset /= sizes.inner;
  cursor.middle = offset % sizes.middle;
  cursor.outer = offset / sizes.middle;
  return cursor;
}

WALK_RULE void next(Cursor& cursor, const Sizes& sizes) {
  if (++cursor.inner < sizes.inner) return;
  cursor.inner = 0;
  if (++cursor.middle < sizes.middle) return;
  cursor.middle = 0;
  ++cursor.outer;
}

WALK_RULE void jump(Cursor& cursor, const Cursor& way, const Sizes& sizes) {
  cursor.inner += way.inner;
  cursor.middle += way.middle;
  cursor.outer += way.outer;
  if (cursor.inner >= sizes.inner) {
    cursor.inner -= sizes.inner;
    ++cursor.middle;
  }
  // middle was at most size - 1, as was the way's: with the carry it stays below twice the size.
  if (cursor.middle >= sizes.middle) {
    cursor.middle -= sizes.middle;
    ++cursor.outer;
  }
}

}  // namespace walk
