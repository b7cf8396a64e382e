// An array as a test vector holds it, in C order.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <numeric>
#include <stdexcept>
#include <vector>

namespace arraylstm {

using Shape = std::vector<int64_t>;

inline std::size_t size_of(const Shape& shape) {
  return std::accumulate(shape.begin(), shape.end(), std::size_t{1}, std::multiplies<>());
}

template <class T>
struct Array {
  Shape shape;
  std::vector<T> values;

  // The part of that shape that begins at `index` times its size.
  Array part(std::size_t index, const Shape& of) const {
    const auto begin = values.begin() + offset(index, size_of(of));
    return {of, {begin, begin + static_cast<std::ptrdiff_t>(size_of(of))}};
  }

  // Overwrites the part that begins at `index` times its size.
  void put(std::size_t index, const Array& part) {
    std::copy(part.values.begin(), part.values.end(), values.begin() + offset(index, part.values.size()));
  }

 private:
  std::ptrdiff_t offset(std::size_t index, std::size_t size) const {
    if ((index + 1) * size > values.size()) {
      throw std::runtime_error("the arrays of a test vector do not fit each other");
    }
    return static_cast<std::ptrdiff_t>(index * size);
  }
};

}  // namespace arraylstm
