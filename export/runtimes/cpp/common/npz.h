// Reads the arrays of an .npz file, which is a zip archive of .npy files: libzip opens the one, this file the other.
#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "array.h"

namespace arraylstm {

class Npz {
 public:
  // Throws std::runtime_error, as `get` does, which says in a sentence what is wrong with the file.
  explicit Npz(const std::filesystem::path& path);

  // The array of a name, whose elements are float (<f4) or int64_t (<i8).
  template <class T>
  Array<T> get(const std::string& name) const;

  // The same, which has to be of that shape.
  template <class T>
  Array<T> get(const std::string& name, const Shape& shape) const;

 private:
  std::filesystem::path path_;
  std::map<std::string, std::string> files_;  // the bytes of <name>.npy by name
};

}  // namespace arraylstm
