//go:build !race

package sfu

const manyViewers = 100
