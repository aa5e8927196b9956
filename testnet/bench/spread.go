package bench

import (
	"math"
	"slices"
)

// Spread is the distribution of a sample, in the unit of its field. Quantiles
// are by nearest rank, so each is a measured value: of 30 values the 95th
// percentile is the second largest and the 99th the largest.
type Spread struct {
	N    int     `json:"n"`
	Min  float64 `json:"min"`
	P50  float64 `json:"p50"`
	P95  float64 `json:"p95"`
	P99  float64 `json:"p99"`
	Max  float64 `json:"max"`
	Mean float64 `json:"mean"`
}

// spreadOf sorts values. Without values it returns the zero Spread.
func spreadOf(values []float64) Spread {
	if len(values) == 0 {
		return Spread{}
	}
	slices.Sort(values)
	sum := 0.0
	for _, v := range values {
		sum += v
	}
	return Spread{
		N: len(values), Min: values[0], P50: quantile(values, 0.50), P95: quantile(values, 0.95), P99: quantile(values, 0.99),
		Max: values[len(values)-1], Mean: sum / float64(len(values)),
	}
}

// quantile is the smallest of the sorted values that at least the share q of
// them do not exceed.
func quantile(sorted []float64, q float64) float64 {
	rank := int(math.Ceil(q * float64(len(sorted))))
	return sorted[min(max(rank, 1), len(sorted))-1]
}

// spreadBy is the Spread of number over items.
func spreadBy[T any](items []T, number func(T) float64) Spread {
	values := make([]float64, 0, len(items))
	for _, item := range items {
		values = append(values, number(item))
	}
	return spreadOf(values)
}
