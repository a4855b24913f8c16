package apikey

import "io"

// SetRandom makes m take its randomness from r.
func (m *Manager) SetRandom(r io.Reader) { m.random = r }

// MaxLength is the length of the longest key.
const MaxLength = maxLength

// Kept returns how many keys, and how many hashes without a key, c holds.
func (c *Cache) Kept() (keys, unknown int) { return c.entries.Len() }

// Checksum returns the checksum of a body of any length.
func Checksum(body string) string {
	sum := checksum(body)
	return string(sum[:])
}
