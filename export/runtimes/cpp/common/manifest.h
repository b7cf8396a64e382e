// What a bundle's manifest.json says to a program that runs it, and what the program answers that cannot.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <vector>

namespace arraylstm {

// A tensor of float32: its name, and the shape of one row of it.
struct Tensor {
  std::string name;
  std::vector<int64_t> shape;
};

// Thrown where a runtime cannot run one of the bundle's graphs; the message says why.
struct NotSupported : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Manifest {
  std::vector<Tensor> states;   // in the order in which graphs take and give them
  std::vector<std::vector<float>> starts;  // what a row of each state starts from
  std::vector<Tensor> outputs;  // of one step: logits, the next states, the diagnostics if there are any
  double tolerance = 0;         // largest difference from float64 PyTorch that passes

  // Throws std::runtime_error, which says in a sentence what is wrong with the bundle.
  static Manifest read(const std::filesystem::path& bundle);

  // Whether an output, by its place among them, is a state.
  bool is_state(std::size_t output) const { return 1 <= output && output <= states.size(); }

  bool has_diagnostics() const { return outputs.size() > 1 + states.size(); }
};

}  // namespace arraylstm
