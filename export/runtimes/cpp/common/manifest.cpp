#include "manifest.h"

#include <fstream>
#include <nlohmann/json.hpp>

namespace arraylstm {
namespace {

Tensor read_state(const nlohmann::json& state) {
  for (const auto& [field, known] : {std::pair{"dtype", "float32"}, std::pair{"initial", "zeros"}}) {
    if (state.at(field) != known) {
      throw std::runtime_error("state " + state.at("name").dump() + " has " + field + " " + state.at(field).dump() +
                               "; this program knows \"" + known + "\" only");
    }
  }
  return {state.at("name"), state.at("shape")};
}

Manifest read_fields(const nlohmann::json& fields) {
  const auto& version = fields.at("schema_version");
  if (version != 1) {
    throw std::runtime_error("it has schema_version " + version.dump() + "; this program reads 1");
  }
  Manifest manifest;
  for (const auto& state : fields.at("states")) {
    manifest.states.push_back(read_state(state));
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
