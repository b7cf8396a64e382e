// Replays a bundle's test vectors in libtorch: replay_libtorch BUNDLE
#include "replay.h"

#include "model.h"

namespace arraylstm {

struct LibTorch {
  using Model = arraylstm::Model;
  static constexpr const char* step_name = "TorchScript step";
  static constexpr const char* sequence_name = "TorchScript forward";

  static Model load(const std::filesystem::path& bundle, const Manifest& manifest) {
    return Model(bundle, manifest.has_diagnostics());
  }

  template <class T>
  static torch::Tensor tensor(const Array<T>& array) {
    return torch::tensor(at::ArrayRef<T>(array.values), c10::CppTypeToScalarType<T>::value).reshape(array.shape);
  }

  static Array<float> array(const torch::Tensor& tensor) {
    const auto packed = tensor.contiguous();
    const auto* values = packed.const_data_ptr<float>();
    return {packed.sizes().vec(), {values, values + packed.numel()}};
  }
};

}  // namespace arraylstm

int main(int argc, char** argv) { return arraylstm::replay<arraylstm::LibTorch>(argc, argv); }
