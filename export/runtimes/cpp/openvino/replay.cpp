// Replays a bundle's test vectors in OpenVINO: replay_openvino BUNDLE
#include "replay.h"

#include "model.h"

namespace arraylstm {

// A sequence graph that OpenVINO reads but cannot run says so, and the rest is replayed.
struct ReplayedModel : Model {
  using Model::Model;

  Output sequence(const ov::Tensor& items, const ov::Tensor& lengths, const std::vector<ov::Tensor>& state) {
    try {
      return Model::sequence(items, lengths, state);
    } catch (const ov::Exception& error) {
      throw NotSupported("OpenVINO cannot run it: " + last_line(error));
    }
  }
};

struct OpenVino {
  using Model = ReplayedModel;
  static constexpr const char* step_name = "step.onnx";
  static constexpr const char* sequence_name = "sequence.onnx";

  static Model load(const std::filesystem::path& bundle, const Manifest&) { return Model(bundle); }

  template <class T>
  static ov::Tensor tensor(const Array<T>& array) {
    ov::Tensor tensor(ov::element::from<T>(), ov::Shape(array.shape.begin(), array.shape.end()));
    std::copy(array.values.begin(), array.values.end(), tensor.data<T>());
    return tensor;
  }

  static Array<float> array(const ov::Tensor& tensor) {
    const auto& shape = tensor.get_shape();
    const auto* values = tensor.data<const float>();
    return {Shape(shape.begin(), shape.end()), {values, values + tensor.get_size()}};
  }
};

}  // namespace arraylstm

int main(int argc, char** argv) { return arraylstm::replay<arraylstm::OpenVino>(argc, argv); }
