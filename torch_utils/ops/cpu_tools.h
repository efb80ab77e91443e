// What the C++ kernels for the CPU share: number types, threads, and how Python hands over tensors.
//
// Tensors come as addresses and sizes: the sources need none of PyTorch's large headers and compile in seconds. The Python
// side (cpu_kernels.py) checks types, sizes and memory layouts. Must not know any operator.

#pragma once

#include <Python.h>

#include <ATen/Parallel.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <vector>

namespace cpu {

// The upper half of a float. Sums and products are made in float.
struct BFloat16 {
  uint16_t bits;
};

// The type to compute in for elements of type S.
template <typename S>
struct ComputeType {
  using type = float;
};
template <>
struct ComputeType<double> {
  using type = double;
};

inline float load(const float* at) { return *at; }
inline double load(const double* at) { return *at; }
inline float load(const BFloat16* at) {
  const uint32_t bits = uint32_t(at->bits) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

inline void store(float* at, float value) { *at = value; }
inline void store(double* at, double value) { *at = value; }
inline void store(BFloat16* at, float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  // To the nearest, halves to the even one. A NaN keeps its quiet bit, or rounding could make it infinite.
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  at->bits = uint16_t(value != value ? 0x7fc0u : rounded);
}

// In the order of cpu_kernels.DTYPES.
enum ElementType : int { kFloat32, kFloat64, kBFloat16 };

// Call function(S{}) with the C++ type of the tensors' elements.
template <typename Function>
void with_element_type(int element_type, Function&& function) {
  switch (element_type) {
    case kFloat32: return function(float{});
    case kFloat64: return function(double{});
    case kBFloat16: return function(BFloat16{});
  }
  throw std::invalid_argument("unknown element type");
}

#if defined(_MSC_VER)
#define MADR_APART __declspec(noinline)
#elif defined(__clang__)
#define MADR_APART __attribute__((noinline))
#else
#define MADR_APART __attribute__((noinline, noclone))
#endif

// One compiled body for one thread and for many. Left to itself the compiler inlines it into both branches of parallel_for, and
// fuses products and sums differently in the two.
template <typename Function>
MADR_APART void call_apart(const Function& function, int64_t first, int64_t last) {
  function(first, last);
}

// Call function(first, last) for parts of [0, count) on PyTorch's threads. `elements` says how much work one item is. No result
// may depend on where the parts end: that depends on the number of threads.
template <typename Function>
void in_parallel(int64_t count, int64_t elements, Function&& function) {
  const int64_t grain = std::max<int64_t>(1, 16384 / std::max<int64_t>(elements, 1));
  at::parallel_for(0, count, grain, [&](int64_t first, int64_t last) { call_apart(function, first, last); });
}

// elements of S -> a vector in the type to compute in; `standard` everywhere if there is no tensor.
template <typename S, typename T = typename ComputeType<S>::type>
std::vector<T> to_vector(const S* source, int64_t count, T standard) {
  std::vector<T> values(count, standard);
  if (source)
    for (int64_t i = 0; i < count; ++i) values[i] = load(source + i);
  return values;
}

// A tensor's address as Python passes it; 0 for None.
template <typename S>
S* pointer(unsigned long long address) {
  return reinterpret_cast<S*>(static_cast<uintptr_t>(address));
}

// Run `work` without Python's lock; an exception becomes Python's.
template <typename Work>
PyObject* run(Work&& work) {
  const char* error = nullptr;
  Py_BEGIN_ALLOW_THREADS try {
    work();
  } catch (const std::bad_alloc&) {
    error = "out of memory in a kernel";
  } catch (const std::exception&) {
    error = "a kernel was called with numbers that it does not know";
  }
  Py_END_ALLOW_THREADS if (error) {
    PyErr_SetString(PyExc_RuntimeError, error);
    return nullptr;
  }
  Py_RETURN_NONE;
}

}  // namespace cpu
