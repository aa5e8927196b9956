package keyframe_test

import (
	"fmt"

	"weir/sfu/keyframe"
)

// The first byte after VP8's payload descriptor has the inverse key frame flag
// (RFC 7741, section 4.3).
func ExampleIs() {
	fmt.Println(keyframe.Is("video/VP8", []byte{0x10, 0x00, 0x9d, 0x01, 0x2a}))
	fmt.Println(keyframe.Is("video/VP8", []byte{0x10, 0x01}))
	fmt.Println(keyframe.Is("video/VP8", []byte{0x10})) // cut short

	// Output:
	// true
	// false
	// false
}
