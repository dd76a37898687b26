package main

import (
	"cmp"
	"encoding/json"
	"math"
	"slices"
	"time"
)

// duration is a time.Duration that is a number of seconds in the results.
type duration time.Duration

// MarshalJSON writes seconds.
func (d duration) MarshalJSON() ([]byte, error) {
	return json.Marshal(math.Round(time.Duration(d).Seconds()*1e6) / 1e6)
}

// samples are times of one thing measured repeatedly.
type samples []time.Duration

// MarshalJSON writes seconds, in the order of measurement.
func (s samples) MarshalJSON() ([]byte, error) {
	seconds := make([]duration, len(s))
	for i, d := range s {
		seconds[i] = duration(d)
	}
	return json.Marshal(seconds)
}

func (s samples) p50() time.Duration { return median(s) }

func (s samples) max() time.Duration {
	if len(s) == 0 {
		return 0
	}
	return slices.Max(s)
}

// median is the middle value, the mean of the two middle ones of an even number,
// and 0 of none.
func median[T interface {
	cmp.Ordered
	~int | ~int64 | ~float64
}](values []T) T {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

// exponent is the slope of log y over log x: 1 is linear growth, 2 is quadratic.
// It is NaN for fewer than two different x.
func exponent(x, y []float64) float64 {
	var n, sumX, sumY, sumXX, sumXY float64
	for i := range x {
		lx, ly := math.Log(x[i]), math.Log(y[i])
		n, sumX, sumY, sumXX, sumXY = n+1, sumX+lx, sumY+ly, sumXX+lx*lx, sumXY+lx*ly
	}
	spread := n*sumXX - sumX*sumX
	if n < 2 || spread < 1e-9 {
		return math.NaN()
	}
	return (n*sumXY - sumX*sumY) / spread
}
