#include <Eigen/Dense>
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "qianli/base/random.h"
#include "qianli/data/token_order.h"

namespace qianli::data {
namespace {

constexpr int64_t kDirections = 10, kIterations = 100;

// [blocks, directions]: the rows of the mask in the directions in which they differ most.
Eigen::MatrixXd features(const BitGrid& mask) {
  const Eigen::Index side = mask.side();
  Eigen::MatrixXd rows(side, side);
  for (Eigen::Index i = 0; i < side; ++i) {
    for (Eigen::Index j = 0; j < side; ++j) rows(i, j) = mask.at(i, j) ? 0.0 : 1.0;
  }
  const Eigen::MatrixXd centred = rows.rowwise() - rows.colwise().mean();
  const Eigen::MatrixXd covariance =
      centred.transpose() * centred / static_cast<double>(std::max<Eigen::Index>(side - 1, 1));
  // Eigenvalues come in ascending order.
  const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> solved(covariance);
  return rows * solved.eigenvectors().rightCols(std::min<Eigen::Index>(kDirections, side));
}

// k rows that a shuffle with a fixed seed brings to the front.
Eigen::MatrixXd first_centres(const Eigen::MatrixXd& points, int64_t k) {
  const uint64_t key = random_key(0, "clusters of an attention mask");
  std::vector<Eigen::Index> order(static_cast<size_t>(points.rows()));
  std::iota(order.begin(), order.end(), Eigen::Index{0});
  Eigen::MatrixXd centres(k, points.cols());
  for (int64_t c = 0; c < k; ++c) {
    const auto at = static_cast<size_t>(c);
    const double u = uniform_at(key, static_cast<uint64_t>(c));
    std::swap(order[at],
              order[at + static_cast<size_t>(u * static_cast<double>(order.size() - at))]);
    centres.row(c) = points.row(order[at]);
  }
  return centres;
}

int64_t nearest(const Eigen::MatrixXd& centres, const Eigen::RowVectorXd& point) {
  int64_t best = 0;
  double least = std::numeric_limits<double>::infinity();
  for (Eigen::Index c = 0; c < centres.rows(); ++c) {
    const double distance = (centres.row(c) - point).squaredNorm();
    if (distance < least) {
      least = distance;
      best = c;
    }
  }
  return best;
}

// The mean of the points of each label; a centre without points stays.
void move_centres(Eigen::MatrixXd& centres, const Eigen::MatrixXd& points,
                  const std::vector<int64_t>& labels) {
  Eigen::MatrixXd sums = Eigen::MatrixXd::Zero(centres.rows(), centres.cols());
  Eigen::VectorXd counts = Eigen::VectorXd::Zero(centres.rows());
  for (Eigen::Index i = 0; i < points.rows(); ++i) {
    const int64_t label = labels[static_cast<size_t>(i)];
    sums.row(label) += points.row(i);
    counts(label) += 1;
  }
  for (Eigen::Index c = 0; c < centres.rows(); ++c) {
    if (counts(c) > 0) centres.row(c) = sums.row(c) / counts(c);
  }
}

}  // namespace

MaskClusters::MaskClusters(const BitGrid& mask) {
  const Eigen::MatrixXd points = features(mask);
  columns_ = points.cols();
  points_.assign(points.data(), points.data() + points.size());
}

std::vector<int64_t> MaskClusters::labels(int64_t k) const {
  const Eigen::Map<const Eigen::MatrixXd> mapped(
      points_.data(), static_cast<Eigen::Index>(points_.size()) / columns_, columns_);
  const Eigen::MatrixXd points = mapped;
  Eigen::MatrixXd centres = first_centres(points, std::min<int64_t>(k, points.rows()));
  std::vector<int64_t> labels(static_cast<size_t>(points.rows()), -1);
  for (int64_t iteration = 0; iteration < kIterations; ++iteration) {
    const auto before = labels;
    for (size_t i = 0; i < labels.size(); ++i)
      labels[i] = nearest(centres, points.row(static_cast<Eigen::Index>(i)));
    if (labels == before) break;
    move_centres(centres, points, labels);
  }
  return labels;
}

}  // namespace qianli::data
