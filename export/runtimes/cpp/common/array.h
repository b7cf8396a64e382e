// An array as a test vector holds it, in C order.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <numeric>
#include <vector>

namespace arraylstm {

using Shape = std::vector<int64_t>;

inline std::size_t size_of(const Shape& shape) {
  return std::accumulate(shape.begin(), shape.end(), std::size_t{1}, std::multiplies<>());
}

// The shape of as many rows as the leading axes say.
inline Shape operator+(Shape lead, const Shape& row) {
  lead.insert(lead.end(), row.begin(), row.end());
  return lead;
}

template <class T>
struct Array {
  Shape shape;
  std::vector<T> values;

  // The part of that shape that begins at `index` times its size.
  Array part(std::size_t index, const Shape& of) const {
    const auto size = static_cast<std::ptrdiff_t>(size_of(of));
    const auto begin = values.begin() + static_cast<std::ptrdiff_t>(index) * size;
    return {of, {begin, begin + size}};
  }

  // Overwrites the part that begins at `index` times its size.
  void put(std::size_t index, const Array& part) {
    const auto size = static_cast<std::ptrdiff_t>(part.values.size());
    std::copy(part.values.begin(), part.values.end(), values.begin() + static_cast<std::ptrdiff_t>(index) * size);
  }
};

}  // namespace arraylstm
