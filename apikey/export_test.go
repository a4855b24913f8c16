package apikey

import "io"

// SetRandom makes m take its randomness from r.
func (m *Manager) SetRandom(r io.Reader) { m.random = r }

// MaxLength is the length of the longest key.
const MaxLength = maxLength

// Remembered returns how many keys, and how many hashes without one, c holds.
func (c *Cache) Remembered() (keys, unknown int) { return c.entries.Len() }

// Checksum returns the checksum of a body of any length.
func Checksum(body string) string {
	sum := checksum(body)
	return string(sum[:])
}
