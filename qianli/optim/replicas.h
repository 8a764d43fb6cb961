// The ranks that hold the same parameters, and take other tokens.
#pragma once

#include "qianli/dist/group.h"

namespace qianli::optim {

struct Replicas {
  // Neighbours that share out what a rank keeps: one slice each.
  dist::Group within;
  // Those that keep the same slice: one of each such neighbourhood.
  dist::Group across;
  // Neighbours within `within` from which a unit that was gathered once in a step is gathered again
  // (LayerZeRO, MindSpeed): each keeps a larger slice until the parameters change. Alone: none
  // does.
  dist::Group near;

  bool alone() const { return within.alone() && across.alone(); }
  // Whether what this rank has of a sum counts where those of all ranks are added: no two that
  // count have the same.
  bool counts() const { return across.rank() == 0; }
};

}  // namespace qianli::optim
