package sfu

// maxSprop bounds the parameter sets of an offer, in bytes of base64.
const maxSprop = 2048
