// Package pb holds the messages between the media planes of two nodes, generated
// from cascade.proto (the signalling of a cascade link) and overflow.proto (the
// handover of a client's request).
package pb
