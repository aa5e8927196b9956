// Package doctor puts the findings of a diagnosis into words: for each code of
// [weir/dht/inspect] a sentence about what was seen, and one about what to do.
//
// Its input is findings. Its output is [Check]s, which are the answer of the
// admin API, and the text that weir doctor prints. It has no goroutines.
package doctor
