# Kernels at speed; all else as fast to compile as can be, since it runs once a request or once a start.
foreach(kernels ggml-base ggml-cpu)
  cmake_language(EVAL CODE "cmake_language(DEFER CALL target_compile_options ${kernels} PRIVATE -O2)")
endforeach()
