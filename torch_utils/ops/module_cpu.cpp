// The Python module of the C++ kernels. cpu_kernels.py is its only caller, and says what the arguments are.

#include <Python.h>

PyObject* bias_act_activate(PyObject*, PyObject*);
PyObject* bias_act_derivative(PyObject*, PyObject*);
PyObject* bias_act_backward(PyObject*, PyObject*);
PyObject* upfirdn2d_resample(PyObject*, PyObject*);

namespace {

PyMethodDef functions[] = {
    {"bias_act_activate", bias_act_activate, METH_VARARGS, nullptr},
    {"bias_act_derivative", bias_act_derivative, METH_VARARGS, nullptr},
    {"bias_act_backward", bias_act_backward, METH_VARARGS, nullptr},
    {"upfirdn2d_resample", upfirdn2d_resample, METH_VARARGS, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

#define TEXT_OF(name) #name
#define TEXT(name) TEXT_OF(name)
#define JOINED_OF(first, second) first##second
#define JOINED(first, second) JOINED_OF(first, second)

PyModuleDef definition = {PyModuleDef_HEAD_INIT, TEXT(TORCH_EXTENSION_NAME), nullptr, -1, functions, nullptr, nullptr, nullptr, nullptr};

}  // namespace

PyMODINIT_FUNC JOINED(PyInit_, TORCH_EXTENSION_NAME)() { return PyModule_Create(&definition); }
