# Read by the build of llama-cpp-python (CMAKE_PROJECT_INCLUDE): the libraries that its Python part loads, and nothing else; and with less
# optimisation, of which the tests would have nothing but the wait for it.
set(LLAMA_BUILD_COMMON OFF) # a plain variable: the package's own CMakeLists.txt would overrule a cached one
set(CMAKE_CXX_FLAGS_RELEASE "-O1 -DNDEBUG")
