// Package delay converts durations to the whole seconds of header fields.
package delay

import "time"

// Seconds returns d in seconds, rounded up, so that a client that waits for them never
// comes too early (RFC 9110, section 10.2.3).
func Seconds(d time.Duration) int64 {
	s := int64(d / time.Second)
	if d%time.Second > 0 {
		s++
	}
	return s
}
