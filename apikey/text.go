package apikey

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

func (m *Manager) checkName(k *Key) string {
	switch n := utf8.RuneCountInString(k.Name); {
	case n < m.minName:
		return "'name' must have a minimum length of " + strconv.Itoa(m.minName) + ". Current length is " + strconv.Itoa(n) + "."
	case n > m.maxName:
		return "'name' must have a maximum length of " + strconv.Itoa(m.maxName) + ". Current length is " + strconv.Itoa(n) + "."
	case strings.TrimSpace(k.Name) != k.Name:
		return "'name' must not begin or end with a blank."
	case !isVisible(k.Name, ""):
		return "'name' must not contain control characters or invisible characters."
	}
	return ""
}

func checkDescription(k *Key) string {
	switch n := utf8.RuneCountInString(k.Description); {
	case n > MaxDescription:
		return "'description' must have a maximum length of " + strconv.Itoa(MaxDescription) + ". Current length is " + strconv.Itoa(n) + "."
	case k.Description != "" && strings.TrimSpace(k.Description) == "":
		return "'description' must not consist of blanks."
	case !isVisible(k.Description, "\t\n\r"):
		return "'description' must not contain control characters or invisible characters."
	}
	return ""
}

// isVisible reports whether people see each character of s, in the order in which a
// program reads them. Otherwise two names can look the same, or one can look like another.
// The control characters in except are accepted.
//
// Joiners and variation selectors are invisible, and accepted only where a script or an
// emoji needs them.
func isVisible(s, except string) bool {
	var before rune
	for _, c := range s {
		switch {
		case c == zeroWidthNonJoiner || c == zeroWidthJoiner:
			if !joins(before) {
				return false
			}
		case c == textStyle || c == emojiStyle:
			if before <= unicode.MaxASCII || unicode.In(before, invisible...) {
				return false
			}
		case unicode.In(c, invisible...) && !strings.ContainsRune(except, c), c == brailleBlank:
			return false
		}
		before = c
	}
	return utf8.ValidString(s) && before != zeroWidthNonJoiner && before != zeroWidthJoiner
}

const (
	zeroWidthNonJoiner = '\u200c'
	zeroWidthJoiner    = '\u200d'
	textStyle          = '\ufe0e' // asks for a symbol as text
	emojiStyle         = '\ufe0f' // asks for a symbol as an emoji
	brailleBlank       = '\u2800' // a symbol, but without a dot
)

// invisible characters control how others are displayed, for instance their direction, or
// have no glyph of their own.
var invisible = []*unicode.RangeTable{
	unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp,
	unicode.Variation_Selector, unicode.Other_Default_Ignorable_Code_Point,
}

// joins reports whether a joiner after c can change how text looks: c is of a script
// between Arabic and Mongolian, those of India among them, or part of an emoji.
func joins(c rune) bool {
	return c >= '\u0600' && c <= '\u18af' && unicode.In(c, unicode.L, unicode.M) ||
		c > '\u2000' && unicode.In(c, unicode.So, unicode.Sk) || c == emojiStyle
}
