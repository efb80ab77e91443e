// The PyTorch side of the CUDA kernels: tensors in, tensors out, on the current stream of their device. It checks what a wrong
// pointer would make of a mistake. Knows nothing of autograd; torch_utils/ops/cuda_kernels.py calls it.

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/csrc/utils/pybind.h>

#include <optional>

#include "kernel_launch.h"

namespace {

using Maybe = std::optional<at::Tensor>;

launch::Format format_of(const at::Tensor& x) {
  switch (x.scalar_type()) {
    case at::kDouble:
      return launch::Format::kFloat64;
    case at::kFloat:
      return launch::Format::kFloat32;
    case at::kHalf:
      return launch::Format::kFloat16;
    case at::kBFloat16:
      return launch::Format::kBFloat16;
    default:
      TORCH_CHECK(false, "the kernels compute in float64, float32, float16 and bfloat16 (got ", x.scalar_type(), ")");
  }
}

// Enough blocks to fill the card; each then walks on through what is left.
int most_blocks() {
  constexpr int kBlocksPerProcessor = 8;
  int processors = 0;
  C10_CUDA_CHECK(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, c10::cuda::current_device()));
  return processors * kBlocksPerProcessor;
}

bool is_channels_last(const at::Tensor& x) { return x.dim() == 4 && !x.is_contiguous() && x.is_contiguous(at::MemoryFormat::ChannelsLast); }

// Pointer of a tensor beside x, or null; `count` elements of x's type on x's device, one after the other.
const void* pointer(const Maybe& beside, const char* name, const at::Tensor& x, int64_t count) {
  if (!beside.has_value()) return nullptr;
  const bool is_alike = beside->device() == x.device() && beside->scalar_type() == x.scalar_type();
  TORCH_CHECK(is_alike, name, " must be ", x.scalar_type(), " on ", x.device(), " (got ", beside->scalar_type(), " on ", beside->device(), ")");
  TORCH_CHECK(beside->is_contiguous() && beside->numel() == count, name, " must be contiguous with ", count, " elements (got ", beside->sizes(), ")");
  return beside->const_data_ptr();
}

void check_on_cuda(const at::Tensor& x) { TORCH_CHECK(x.is_cuda(), "a CUDA tensor is needed (got one on ", x.device(), ")"); }

walk::Sizes walk_sizes(const at::Tensor& x, int64_t dim) {
  TORCH_CHECK(dim >= 0 && dim < x.dim(), "dim must name an axis of the tensor (got ", dim, " of ", x.dim(), ")");
  if (is_channels_last(x)) {
    TORCH_CHECK(dim == 1, "channels-last tensors have their channels along axis 1 (got dim ", dim, ")");
    return walk::Sizes{x.size(2) * x.size(3), x.size(1), true};
  }
  TORCH_CHECK(x.is_contiguous(), "the tensor must be contiguous or channels-last (got strides ", x.strides(), ")");
  int64_t inner = 1;
  for (int64_t axis = dim + 1; axis < x.dim(); ++axis) inner *= x.size(axis);
  return walk::Sizes{x.size(dim), inner, false};
}

at::Tensor activate(const at::Tensor& x, const Maybe& bias, const Maybe& scale, const Maybe& noise, int64_t dim, int kind, double alpha, double gain,
                    double limit) {
  check_on_cuda(x);
  const c10::cuda::CUDAGuard guard(x.device());
  const walk::Sizes sizes = walk_sizes(x, dim);
  TORCH_CHECK(dim == 1 || (!scale.has_value() && !noise.has_value()), "scale and noise go with images, whose channels lie along axis 1");
  at::Tensor out = at::empty_like(x);
  const int64_t images = x.numel() == 0 ? 0 : x.numel() / (sizes.middle * sizes.inner);
  const void* b = pointer(bias, "the bias", x, x.size(dim));
  const void* s = pointer(scale, "scale", x, images * sizes.channels());
  const void* n = pointer(noise, "noise", x, images * sizes.pixels());
  C10_CUDA_CHECK(launch::activate(format_of(x), {kind, alpha, gain, limit}, x.const_data_ptr(), b, s, n, out.data_ptr(), x.numel(), sizes,
                                  most_blocks(), c10::cuda::getCurrentCUDAStream()));
  return out;
}

at::Tensor derivative(const at::Tensor& gradient, const at::Tensor& reference, int order, bool from_result, int kind, double alpha, double gain,
                      double limit) {
  check_on_cuda(gradient);
  const c10::cuda::CUDAGuard guard(gradient.device());
  TORCH_CHECK(reference.device() == gradient.device() && reference.scalar_type() == gradient.scalar_type(), "both tensors must be ",
              gradient.scalar_type(), " on ", gradient.device(), " (got ", reference.scalar_type(), " on ", reference.device(), ")");
  TORCH_CHECK(gradient.is_non_overlapping_and_dense() && reference.sizes() == gradient.sizes() && reference.strides() == gradient.strides(),
              "both tensors must be dense and lie in memory alike (got ", gradient.sizes(), " with strides ", gradient.strides(), " and ",
              reference.sizes(), " with ", reference.strides(), ")");
  at::Tensor out = at::empty_like(gradient);
  TORCH_INTERNAL_ASSERT(out.strides() == gradient.strides());
  C10_CUDA_CHECK(launch::derivative(format_of(gradient), {kind, alpha, gain, limit}, gradient.const_data_ptr(), reference.const_data_ptr(), order,
                                    from_result, out.data_ptr(), gradient.numel(), most_blocks(), c10::cuda::getCurrentCUDAStream()));
  return out;
}

using Pair = std::pair<int64_t, int64_t>;  // (horizontal, vertical)

resample::Strides<int64_t> strides_of(const at::Tensor& x) { return {x.stride(0), x.stride(1), x.stride(2), x.stride(3)}; }

at::Tensor upfirdn2d(const at::Tensor& x, const at::Tensor& filter, Pair up, Pair down, Pair before, Pair size, bool correlate, double gain) {
  check_on_cuda(x);
  const c10::cuda::CUDAGuard guard(x.device());
  const auto sum_type = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  TORCH_CHECK(x.dim() == 4 && filter.dim() == 2, "images have 4 axes and a filter 2 (got ", x.dim(), " and ", filter.dim(), ")");
  TORCH_CHECK(filter.device() == x.device() && filter.scalar_type() == sum_type && filter.is_contiguous() && filter.numel() > 0,
              "the filter must be contiguous ", sum_type, " on ", x.device(), " (got ", filter.scalar_type(), " on ", filter.device(), ")");
  TORCH_CHECK(up.first >= 1 && up.second >= 1 && down.first >= 1 && down.second >= 1, "factors must be at least 1");
  TORCH_CHECK(size.first >= 1 && size.second >= 1, "the result must have at least one pixel (got ", size.first, " x ", size.second, ")");
  const bool channels_last = is_channels_last(x);
  at::Tensor out = at::empty({x.size(0), x.size(1), size.second, size.first}, x.options(),
                             channels_last ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous);
  const resample::Axis<int64_t> horizontal{x.size(3), size.first, filter.size(1), up.first, down.first, before.first};
  const resample::Axis<int64_t> vertical{x.size(2), size.second, filter.size(0), up.second, down.second, before.second};
  const resample::Problem<int64_t> problem{horizontal, vertical, x.size(0), x.size(1), strides_of(x), strides_of(out), channels_last, correlate};
  C10_CUDA_CHECK(launch::upfirdn2d(format_of(x), problem, x.const_data_ptr(), filter.const_data_ptr(), out.data_ptr(), gain, most_blocks(),
                                   c10::cuda::getCurrentCUDAStream()));
  return out;
}

}  // namespace

PYBIND11_MODULE(TORCH_EXTENSION_NAME, module) {
  module.def("activate", &activate);
  module.def("derivative", &derivative);
  module.def("upfirdn2d", &upfirdn2d);
}
