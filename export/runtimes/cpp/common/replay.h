// The replay, the same for every runtime: run a bundle's test vectors, keep the state, print the largest differences.
#pragma once

#include <algorithm>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <string>
#include <vector>

#include "array.h"
#include "manifest.h"
#include "vectors.h"

namespace arraylstm {

// A Runtime names the two forms of the model (`step_name`, `sequence_name`), loads the model (`load`), and turns arrays
// into its tensors (`tensor`) and back (`array`). Its Model offers
//   std::vector<Tensor> initial_state(int64_t batch);
//   Output step(Tensor items, std::vector<Tensor> state);
//   Output sequence(Tensor items, Tensor lengths, std::vector<Tensor> state);   (or throws NotSupported)
// where Output has the members logits, state and diagnostics.
template <class Runtime>
class Replay {
 public:
  explicit Replay(const std::filesystem::path& bundle)
      : manifest_(Manifest::read(bundle)),
        steps_(read_vectors(bundle, manifest_, "step")),
        sequences_(read_vectors(bundle, manifest_, "sequence")),
        model_(Runtime::load(bundle, manifest_)) {}

  // Prints what was found; returns the program's exit status.
  int run() {
    const std::string step = Runtime::step_name;
    const std::string sequence = Runtime::sequence_name;
    report(step, steps_,
           [this](const Vector& v) { return arrays(model_.step(Runtime::tensor(v.items), tensors(v.state))); });
    try {
      report(sequence, sequences_, [this](const Vector& v) {
        return arrays(model_.sequence(Runtime::tensor(v.items), Runtime::tensor(v.lengths), tensors(v.state)));
      });
    } catch (const NotSupported& reason) {
      std::printf("%s: not supported: %s\n", sequence.c_str(), reason.what());
    }
    report(step + ", item by item", sequences_, [this](const Vector& v) { return item_by_item(v); });
    std::printf("largest difference %.1e\n", largest_);
    return largest_ <= std::max(manifest_.tolerance, 1e-5) ? 0 : 1;
  }

 private:
  using Arrays = std::vector<Array<float>>;
  using Model = typename Runtime::Model;

  template <class Run>
  void report(const std::string& form, const std::vector<Vector>& vectors, Run run) {
    Difference difference;
    for (const auto& vector : vectors) {
      difference.compare(vector, manifest_, run(vector));
    }
    std::printf("%s: %zu vectors, largest difference %.1e in %s\n", form.c_str(), vectors.size(), difference.largest,
                difference.where.c_str());
    largest_ = std::max(largest_, difference.largest);
  }

  // Every row is a session of its own. Behind a row's length, a sequence's logits and diagnostics are zero.
  Arrays item_by_item(const Vector& vector) {
    Arrays results;
    for (const auto& expected : vector.expected) {
      results.push_back({expected.shape, std::vector<float>(expected.values.size())});
    }
    const auto steps = static_cast<std::size_t>(vector.items.shape.back());
    for (std::size_t row = 0; row < vector.lengths.values.size(); ++row) {
      auto state = first_state(vector, row);
      for (std::size_t t = 0; t < static_cast<std::size_t>(vector.lengths.values[row]); ++t) {
        auto output = model_.step(Runtime::tensor(vector.items.part(row * steps + t, {1})), state);
        put_series(results, row * steps + t, arrays(output));
        state = std::move(output.state);
      }
      for (std::size_t i = 0; i < state.size(); ++i) {
        results[1 + i].put(row, Runtime::array(state[i]));
      }
    }
    return results;
  }

  void put_series(Arrays& results, std::size_t index, const Arrays& outputs) {
    for (std::size_t i = 0; i < outputs.size(); ++i) {
      if (!manifest_.is_state(i)) {
        results[i].put(index, outputs[i]);
      }
    }
  }

  auto first_state(const Vector& vector, std::size_t row) {
    Arrays given;
    bool alike = vector.lengths.values.size() > 1;  // all rows start alike, as sessions do: it is the model's to say
    for (std::size_t i = 0; i < vector.state.size(); ++i) {
      given.push_back(vector.state[i].part(row, Shape{1} + manifest_.states[i].shape));
      const auto& all = vector.state[i].values;
      const auto size = static_cast<std::ptrdiff_t>(given.back().values.size());
      alike = alike && std::equal(all.begin() + size, all.end(), all.begin());
    }
    return alike ? model_.initial_state(1) : tensors(given);
  }

  template <class T>
  static auto tensors(const std::vector<Array<T>>& arrays) {
    std::vector<decltype(Runtime::tensor(arrays.front()))> found;
    for (const auto& array : arrays) {
      found.push_back(Runtime::tensor(array));
    }
    return found;
  }

  // The outputs in the manifest's order.
  template <class Output>
  static Arrays arrays(const Output& output) {
    Arrays found{Runtime::array(output.logits)};
    for (const auto* part : {&output.state, &output.diagnostics}) {
      for (const auto& tensor : *part) {
        found.push_back(Runtime::array(tensor));
      }
    }
    return found;
  }

  Manifest manifest_;
  std::vector<Vector> steps_;
  std::vector<Vector> sequences_;
  Model model_;
  double largest_ = 0;
};

// What a replay program's main does. Exit status: 0 within the tolerance, 1 beyond it, 2 bad input.
template <class Runtime>
int replay(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: %s BUNDLE\n", argv[0]);
    return 2;
  }
  try {
    return Replay<Runtime>(argv[1]).run();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 2;
  }
}

}  // namespace arraylstm
