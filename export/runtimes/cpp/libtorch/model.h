// A bundle's TorchScript file in libtorch. Copy this file.
//
//   arraylstm::Model model("bundle");
//   auto state = model.initial_state(1);
//   for (int64_t item : {3, 1, 4}) {
//     auto output = model.step(torch::tensor({item}), state);
//     state = output.state;             // keep it for the session's next item
//     auto [scores, items] = output.logits.topk(10);
//   }
#pragma once

#include <torch/script.h>

#include <filesystem>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace arraylstm {

// Use a model from one thread at a time. Item ids must lie within the vocabulary: what others do is not defined.
class Model {
 public:
  struct Output {
    torch::Tensor logits;               // float32: (B, V) of a step, (B, S, V) of a sequence
    std::vector<torch::Tensor> state;   // in the order of the manifest's `states`, each (B, ...)
    std::vector<torch::Tensor> diagnostics;  // what the cells show of themselves, if it was asked for
  };

  // Throws std::runtime_error if the bundle has no TorchScript file that can be read.
  explicit Model(const std::filesystem::path& bundle, bool diagnostics = false)
      : program_(load(bundle / "model.torchscript.pt")), diagnostics_(diagnostics) {}

  // The state a session starts from.
  std::vector<torch::Tensor> initial_state(int64_t batch) {
    return program_.get_method("initial_state")({batch}).toTensorVector();
  }

  // Consumes one item per row: items (B) int64.
  Output step(torch::Tensor items, std::vector<torch::Tensor> state) {
    return run(diagnostics_ ? "step_with_diagnostics" : "step", {std::move(items), std::move(state)});
  }

  // Consumes a sequence per row: items (B, S) and lengths (B) int64. A row's state is that after its own length.
  Output sequence(torch::Tensor items, torch::Tensor lengths, std::vector<torch::Tensor> state) {
    return run(diagnostics_ ? "unroll_with_diagnostics" : "forward", {std::move(items), std::move(state), std::move(lengths)});
  }

 private:
  static torch::jit::Module load(const std::filesystem::path& path) {
    try {
      return torch::jit::load(path.string(), torch::kCPU);
    } catch (const c10::Error& error) {
      const std::string message = error.what_without_backtrace();
      throw std::runtime_error(path.string() + ": libtorch cannot read it: " + message.substr(0, message.find('\n')));
    }
  }

  Output run(const std::string& method, std::vector<c10::IValue> arguments) {
    const c10::InferenceMode no_gradients;
    const auto results = program_.get_method(method)(std::move(arguments)).toTuple();
    const auto& elements = results->elements();
    Output output{elements[0].toTensor(), elements[1].toTensorVector(), {}};
    if (diagnostics_) {
      output.diagnostics = elements[2].toTensorVector();
    }
    return output;
  }

  torch::jit::Module program_;
  bool diagnostics_;
};

}  // namespace arraylstm
