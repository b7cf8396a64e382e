// A bundle's ONNX graphs in OpenVINO. Copy this file and ../common/manifest.{h,cpp}.
//
//   arraylstm::Model model("bundle");
//   auto state = model.initial_state(1);
//   for (int64_t item : {3, 1, 4}) {
//     ov::Tensor items(ov::element::i64, {1}, &item);
//     auto output = model.step(items, state);
//     state = output.state;             // keep it for the session's next item
//     const float* scores = output.logits.data<float>();
//   }
#pragma once

#include <algorithm>
#include <filesystem>
#include <openvino/openvino.hpp>
#include <stdexcept>
#include <string>
#include <vector>

#include "manifest.h"

namespace arraylstm {

// What went wrong, of an exception of OpenVINO's; the lines before it say where in its source.
inline std::string last_line(const ov::Exception& error) {
  std::string message = error.what();
  message.erase(message.find_last_not_of(" \n") + 1);
  return message.substr(message.rfind('\n') + 1);
}

// Use a model from one thread at a time. Item ids must lie within the vocabulary: what others do is not defined.
class Model {
 public:
  struct Output {
    ov::Tensor logits;               // float32: (B, V) of a step, (B, S, V) of a sequence
    std::vector<ov::Tensor> state;   // in the order of the manifest's `states`, each (B, ...)
    std::vector<ov::Tensor> diagnostics;  // what the cells show of themselves, in a bundle exported with --diagnostics
  };

  // Throws std::runtime_error if there is no bundle, or OpenVINO cannot read its graphs.
  explicit Model(const std::filesystem::path& bundle)
      : manifest_(Manifest::read(bundle)), bundle_(bundle), step_(compile(bundle / "step.onnx")) {}

  // The state a session starts from.
  std::vector<ov::Tensor> initial_state(int64_t batch) const {
    std::vector<ov::Tensor> state;
    for (std::size_t i = 0; i < manifest_.states.size(); ++i) {
      const auto& row = manifest_.states[i].shape;
      const auto& start = manifest_.starts[i];
      ov::Shape shape(row.begin(), row.end());
      shape.insert(shape.begin(), static_cast<std::size_t>(batch));
      float* values = state.emplace_back(ov::element::f32, shape).data<float>();
      for (int64_t each = 0; each < batch; ++each) {
        values = std::copy(start.begin(), start.end(), values);
      }
    }
    return state;
  }

  // Consumes one item per row: items (B) int64.
  Output step(const ov::Tensor& items, const std::vector<ov::Tensor>& state) {
    step_.set_tensor("items", items);
    return run(step_, state);
  }

  // Consumes a sequence per row: items (B, S) and lengths (B) int64. A row's state is that after its own length.
  // Throws NotSupported where OpenVINO would give wrong answers.
  Output sequence(const ov::Tensor& items, const ov::Tensor& lengths, const std::vector<ov::Tensor>& state) {
    if (!sequence_) {
      sequence_ = compile(bundle_ / "sequence.onnx");
    }
    sequence_.set_tensor("items", items);
    sequence_.set_tensor("lengths", lengths);
    return run(sequence_, state);
  }

 private:
  static ov::InferRequest compile(const std::filesystem::path& path) {
    try {
      ov::Core core;
      const auto graph = core.read_model(path.string());
      check_lengths(*graph);
      // Some CPUs would compute in bfloat16 or float16 unless told otherwise.
      const auto precise = ov::hint::inference_precision(ov::element::f32);
      return core.compile_model(graph, "CPU", precise).create_infer_request();
    } catch (const ov::Exception& error) {
      throw std::runtime_error(path.string() + ": OpenVINO cannot read it: " + last_line(error));
    }
  }

  // With dynamic shapes the CPU device runs LSTMSequence without a look at its lengths: the state of a row goes on to
  // the end of the longest one (https://github.com/openvinotoolkit/openvino/pull/10710, and still so in 2026.4).
  static void check_lengths(const ov::Model& graph) {
    for (const auto& node : graph.get_ops()) {
      if (node->get_type_name() == std::string("LSTMSequence") && node->is_dynamic()) {
        throw NotSupported(
            "OpenVINO's CPU device ignores the lengths of an LSTM operator whose shapes are dynamic; "
            "take step.onnx, or fix B and S by ov::Model::reshape");
      }
    }
  }

  Output run(ov::InferRequest& request, const std::vector<ov::Tensor>& state) const {
    for (std::size_t i = 0; i < state.size(); ++i) {
      request.set_tensor("state_" + manifest_.states[i].name, state[i]);
    }
    request.infer();
    Output output{copy(request.get_tensor("logits")), {}, {}};
    for (std::size_t i = 1; i < manifest_.outputs.size(); ++i) {
      auto& part = manifest_.is_state(i) ? output.state : output.diagnostics;
      part.push_back(copy(request.get_tensor(manifest_.outputs[i].name)));
    }
    return output;
  }

  // The request's own tensors are overwritten by its next inference.
  static ov::Tensor copy(const ov::Tensor& tensor) {
    ov::Tensor kept(tensor.get_element_type(), tensor.get_shape());
    tensor.copy_to(kept);
    return kept;
  }

  Manifest manifest_;
  std::filesystem::path bundle_;
  ov::InferRequest step_;
  ov::InferRequest sequence_;  // empty until it is wanted
};

}  // namespace arraylstm
