//go:build race

package sfu

// manyViewers is the number of handshakes that two cores can do at once, slowed
// tenfold by the race detector.
const manyViewers = 20
