// Units of whose parameters a rank keeps slices only (ZeRO-3).
#pragma once

#include <map>

#include "qianli/optim/parameter_gathering.h"

namespace qianli::optim {

class GatheringByUse : public ParameterGathering {
 public:
  GatheringByUse(nn::ParameterSet& parameters, std::vector<Replicas> replicas,
                 GatheringOptions options);

  void begin(uint64_t number) override;
  void use(const nn::Units& units) override;
  void let_go(const nn::Units& units) override;
  void updated() override;
  void complete() override {}
  int64_t peak_unit_bytes() const override { return parameters_.gathered().peak_bytes(); }

 private:
  struct Piece {
    size_t region = 0;
    size_t buffer = 0;   // of parameters_.gathered()
    nn::FlatRange kept;  // the rank's slice, in what it keeps of the region
    at::Tensor near;     // the slice among neighbours, from the first use after an update on
  };
  struct Unit {
    std::vector<Piece> pieces;
    std::vector<dist::Pending> pending;
    int64_t users = 0;
    bool is_whole = false;  // or will be when `pending` has ended
  };
  void start(size_t unit);
  void free(size_t unit);
  void free_unused();
  // Whether one of the next `ahead` uses is of the unit.
  bool comes_soon(size_t unit) const;

  nn::ParameterSet& parameters_;
  std::vector<Replicas> replicas_;
  GatheringOptions options_;
  std::vector<Unit> units_;
  // Of passes that were made before the units in the order of their use.
  std::map<uint64_t, nn::Units> known_;
  uint64_t number_ = 0;
  nn::Units seen_;      // in this pass
  nn::Units expected_;  // in this pass; empty where it is new, or has gone another way
};

}  // namespace qianli::optim
