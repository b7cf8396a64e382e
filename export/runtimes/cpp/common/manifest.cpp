#include "manifest.h"

#include <fstream>
#include <nlohmann/json.hpp>

namespace arraylstm {
namespace {

Tensor read_state(const nlohmann::json& state) {
  if (state.at("dtype") != "float32") {
    throw std::runtime_error("state " + state.at("name").dump() + " has dtype " + state.at("dtype").dump() +
                             "; this program knows \"float32\" only");
  }
  return {state.at("name"), state.at("shape")};
}

// A state starts from zeros, or from the numbers of one row, which the manifest lists.
std::vector<float> read_start(const nlohmann::json& state, const std::vector<int64_t>& shape) {
  std::size_t size = 1;
  for (const auto length : shape) {
    size *= static_cast<std::size_t>(length);
  }
  const auto& initial = state.at("initial");
  if (initial == "zeros") {
    return std::vector<float>(size);
  }
  if (!initial.is_array() || initial.size() != size) {
    const auto given = initial.is_array() ? std::to_string(initial.size()) + " numbers" : initial.dump();
    throw std::runtime_error("state " + state.at("name").dump() + " has initial " + given +
                             "; this program knows \"zeros\", or the " + std::to_string(size) + " numbers of a row");
  }
  return initial;
}

Manifest read_fields(const nlohmann::json& fields) {
  const auto& version = fields.at("schema_version");
  if (version != 1 && version != 2) {
    throw std::runtime_error("it has schema_version " + version.dump() + "; this program reads 1 and 2");
  }
  Manifest manifest;
  for (const auto& state : fields.at("states")) {
    manifest.states.push_back(read_state(state));
    manifest.starts.push_back(read_start(state, manifest.states.back().shape));
  }
  for (const auto& output : fields.at("graphs").at("step.onnx").at("outputs")) {
    const auto& shape = output.at("shape");  // its first axis is "B"
    manifest.outputs.push_back({output.at("name"), {shape.begin() + 1, shape.end()}});
  }
  manifest.tolerance = fields.at("tolerance").at("allowed");
  return manifest;
}

}  // namespace

Manifest Manifest::read(const std::filesystem::path& bundle) {
  const auto path = bundle / "manifest.json";
  std::ifstream file(path);
  if (!file) {
    throw std::runtime_error(bundle.string() + ": is no bundle, for no manifest.json can be read there");
  }
  try {
    return read_fields(nlohmann::json::parse(file));
  } catch (const std::exception& error) {
    throw std::runtime_error(path.string() + ": " + error.what());
  }
}

}  // namespace arraylstm
