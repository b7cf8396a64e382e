#include "npz.h"

#include <zip.h>

#include <cstring>
#include <memory>
#include <regex>
#include <stdexcept>

namespace arraylstm {
namespace {

template <class T>
constexpr const char* descr = nullptr;
template <>
constexpr const char* descr<float> = "<f4";
template <>
constexpr const char* descr<int64_t> = "<i8";

std::string text(const Shape& shape) {
  std::string numbers;
  for (const auto length : shape) {
    numbers += (numbers.empty() ? "" : ", ") + std::to_string(length);
  }
  return "(" + numbers + ")";
}

std::string read_entry(zip_t* archive, zip_uint64_t index) {
  zip_stat_t stat;
  const std::unique_ptr<zip_file_t, int (*)(zip_file_t*)> file(zip_fopen_index(archive, index, 0), zip_fclose);
  if (!file || zip_stat_index(archive, index, 0, &stat) != 0) {
    throw std::runtime_error(zip_strerror(archive));
  }
  std::string bytes(stat.size, '\0');
  if (zip_fread(file.get(), bytes.data(), bytes.size()) != static_cast<zip_int64_t>(bytes.size())) {
    throw std::runtime_error(zip_file_strerror(file.get()));
  }
  return bytes;
}

// The format of .npy, version 1: \x93NUMPY, two bytes of version, the header's length in two bytes, the header, the
// elements. The header is a Python dictionary as text: {'descr': '<f4', 'fortran_order': False, 'shape': (2, 7), }
template <class T>
Array<T> parse(const std::string& npy) {
  if (npy.size() < 10 || npy.compare(0, 8, "\x93NUMPY\x01\x00", 8) != 0) {
    throw std::runtime_error("it is not an .npy file of version 1");
  }
  const std::size_t begin = 10 + static_cast<unsigned char>(npy[8]) + 256 * static_cast<unsigned char>(npy[9]);
  const std::string header = npy.substr(10, npy.find('}', 10) - 9);  // padding and a newline follow
  static const std::regex form(R"(\{'descr': '(.*)', 'fortran_order': False, 'shape': \(([\d, ]*)\), \})");
  std::smatch found;
  if (!std::regex_match(header, found, form) || found[1] != descr<T>) {
    throw std::runtime_error("its header is " + header + ", but an array of " + descr<T> + " in C order is wanted");
  }
  Array<T> array;
  const std::string numbers = found[2];
  static const std::regex number(R"(\d+)");
  for (std::sregex_iterator match(numbers.begin(), numbers.end(), number), end; match != end; ++match) {
    array.shape.push_back(std::stoll(match->str()));
  }
  array.values.resize(size_of(array.shape));
  if (npy.size() - begin != array.values.size() * sizeof(T)) {
    throw std::runtime_error("its length is not that of its shape");
  }
  std::memcpy(array.values.data(), npy.data() + begin, npy.size() - begin);
  return array;
}

}  // namespace

Npz::Npz(const std::filesystem::path& path) : path_(path) {
  int code = 0;
  const std::unique_ptr<zip_t, void (*)(zip_t*)> archive(zip_open(path.c_str(), ZIP_RDONLY, &code), zip_discard);
  if (!archive) {
    throw std::runtime_error(path.string() + ": is not an .npz file");
  }
  try {
    for (zip_int64_t index = 0; index < zip_get_num_entries(archive.get(), 0); ++index) {
      const std::filesystem::path name = zip_get_name(archive.get(), index, 0);
      files_[name.stem()] = read_entry(archive.get(), index);
    }
  } catch (const std::runtime_error& error) {
    throw std::runtime_error(path.string() + ": cannot be read: " + error.what());
  }
}

template <class T>
Array<T> Npz::get(const std::string& name) const {
  const auto file = files_.find(name);
  if (file == files_.end()) {
    throw std::runtime_error(path_.string() + ": has no array " + name);
  }
  try {
    return parse<T>(file->second);
  } catch (const std::runtime_error& error) {
    throw std::runtime_error(path_.string() + ": " + name + " cannot be read: " + error.what());
  }
}

template <class T>
Array<T> Npz::get(const std::string& name, const Shape& shape) const {
  auto array = get<T>(name);
  if (array.shape != shape) {
    throw std::runtime_error(path_.string() + ": " + name + " is " + text(array.shape) + ", but has to be " +
                             text(shape));
  }
  return array;
}

template Array<int64_t> Npz::get(const std::string&) const;
template Array<int64_t> Npz::get(const std::string&, const Shape&) const;
template Array<float> Npz::get(const std::string&, const Shape&) const;

}  // namespace arraylstm
