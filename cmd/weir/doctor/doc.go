// Package doctor words what a diagnosis has found: each code of
// [weir/dht/inspect] as a sentence of what was seen, and one of what to do.
//
// What comes in: findings. What goes out: [Check]s, which are the answer of the
// admin API, and the text that weir doctor prints. It has no goroutines.
package doctor
