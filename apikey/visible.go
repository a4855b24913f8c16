package apikey

import (
	"cmp"
	"errors"
	"strings"
)

// hiddenBits is how many random bits of a key are stored nowhere in the clear.
const hiddenBits = 112

// checkVisible returns what is wrong with the number of characters that are to be
// displayed, or "". The shortest key decides, because more of its visible characters are
// random.
func checkVisible(f Format, visible int) string {
	first, _ := disclosed(f, shortestLabel(f))
	if visible > first {
		return "must leave at least 112 bits of every key hidden"
	}
	return ""
}

// show sets the characters of a new key that are stored with it. want is
// [ManagerConfig.Visible]. If too few bits would stay hidden, it stores less.
func (k *Key) show(f Format, text string, want, usual int) error {
	if usual > min(len(text), MaxPrefix) || len(text) < 4 {
		return errors.New("apikey: the format does not parse a key that it has generated")
	}
	first, last := disclosed(f, labelOf(f, text))
	k.Prefix = text[:min(cmp.Or(want, usual), first, len(text))]
	k.LastFour = text[len(text)-last:]
	return checkShown(k)
}

// disclosed returns how many of the first and of the last characters of a key may be
// stored if its first label characters are not random.
func disclosed(f Format, label int) (first, last int) {
	// A random character of the formats of this package is one of at most 64, and any
	// other is visible ASCII.
	bits := 7
	if _, ours := f.(definition); ours {
		bits = 6
	}
	random := max(0, f.Entropy()-hiddenBits) / bits
	last = min(4, random)
	return label + random - last, last
}

// labelOf returns how many of the first characters of text are not random.
func labelOf(f Format, text string) (n int) {
	for _, p := range f.Prefixes() {
		if strings.HasPrefix(text, p) {
			n = max(n, len(p))
		}
	}
	return n + publicPart(f)
}

// shortestLabel returns the least result of labelOf for any key of f.
func shortestLabel(f Format) int {
	shortest := -1
	for _, p := range f.Prefixes() {
		if shortest < 0 || len(p) < shortest {
			shortest = len(p)
		}
	}
	return max(0, shortest) + publicPart(f)
}

// publicPart returns how many characters after the prefix Entropy does not count.
func publicPart(f Format) int {
	if _, ok := f.(Split); ok {
		return splitID + 1
	}
	return 0
}
