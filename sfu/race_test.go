//go:build race

package sfu

// manyViewers is what two cores can shake hands with at once, slowed tenfold
// by the race detector.
const manyViewers = 20
