package clientip

import (
	"net/netip"
	"strings"

	"github.com/usher-go/usher/internal/httptoken"
)

// A format is the grammar of a header field.
type format uint8

const (
	xForwardedFor format = iota
	forwarded            // RFC 7239
	single               // one address
)

// An element is what one proxy states about the request that it received.
type element struct {
	empty bool       // there is nothing between two commas
	addr  netip.Addr // of the sender; invalid if the element is malformed or has none
	proto string     // the scheme of the request, or ""
}

// last parses the last element of line. It returns the element, the rest of line to the
// left of it, and whether the rest holds more elements.
func (f format) last(line string) (e element, rest string, more bool) {
	start := max(0, len(line)-maxElement)
	window := line[start:]
	comma := strings.LastIndexByte(window, ',')
	if f == forwarded {
		comma = lastComma(window)
	}
	if comma < 0 && start > 0 {
		return element{}, "", false
	}
	text := trim(window[comma+1:])
	if f == forwarded {
		e = parseForwarded(text)
	} else {
		e.addr = parseNode(text)
	}
	e.empty = text == ""
	if comma < 0 {
		return e, "", false
	}
	return e, line[:start+comma], true
}

// lastComma returns the index of the last comma outside quoted strings, or -1.
//
// It scans from right to left, so that what a client wrote cannot change how the elements
// of proxies are read. From the right, a quoted string extends to the first quote without
// a backslash before it: quotes inside the string have a backslash, and the opening quote
// follows an equals sign. In a malformed element lastComma may return a wrong comma, but
// then the text to the right of that comma is malformed, too.
func lastComma(s string) int {
	quoted := false
	for i := len(s) - 1; i >= 0; i-- {
		switch {
		case s[i] == ',' && !quoted:
			return i
		case s[i] == '"' && quoted:
			quoted = i > 0 && s[i-1] == '\\'
		case s[i] == '"':
			quoted = true
		}
	}
	return -1
}

// parseForwarded parses an element of Forwarded (RFC 7239, section 4). The result has no
// address if the element is malformed anywhere or does not have exactly one for
// parameter, and no scheme if it does not have exactly one proto parameter. It accepts
// two things that the RFC forbids, as they are common: blanks around semicolons, and
// unquoted values with colons or brackets.
func parseForwarded(text string) element {
	var node, proto string
	nodes, protos := 0, 0
	for ; text != ""; text = trim(text) {
		if text[0] == ';' {
			text = text[1:]
			continue
		}
		name, rest, ok := strings.Cut(text, "=")
		if !ok || !httptoken.Valid(name) {
			return element{}
		}
		value, rest, ok := cutValue(rest)
		if rest = trim(rest); !ok || rest != "" && rest[0] != ';' {
			return element{}
		}
		text = rest
		switch {
		case strings.EqualFold(name, "for"):
			node, nodes = value, nodes+1
		case strings.EqualFold(name, "proto"):
			proto, protos = value, protos+1
		}
	}
	if nodes != 1 {
		return element{}
	}
	if protos != 1 {
		proto = ""
	}
	return element{addr: parseNode(node), proto: proto}
}

// cutValue cuts the value of a parameter off the start of s.
func cutValue(s string) (value, rest string, ok bool) {
	if strings.HasPrefix(s, `"`) {
		return cutQuoted(s[1:])
	}
	end := 0
	for end < len(s) && s[end] > ' ' && s[end] < 0x7f && strings.IndexByte(`",;\`, s[end]) < 0 {
		end++
	}
	return s[:end], s[end:], end > 0
}

// cutQuoted cuts the rest of a quoted string (RFC 9110, section 5.6.4) off the start
// of s, which begins after the opening quote.
func cutQuoted(s string) (value, rest string, ok bool) {
	pairs := false
	for i := 0; i < len(s); i++ {
		if s[i] == '"' {
			if value = s[:i]; pairs {
				value = unescape(value)
			}
			return value, s[i+1:], true
		}
		if s[i] == '\\' && i+1 < len(s) {
			pairs = true
			i++
		}
		if s[i] < ' ' && s[i] != '\t' || s[i] == 0x7f {
			break
		}
	}
	return "", "", false
}

// unescape replaces each quoted pair with its second character.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// parsePeer returns the same as parseNode, but is faster for an IPv4 address with a port,
// which is the usual RemoteAddr.
func parsePeer(s string) netip.Addr {
	var quad [4]byte
	octet, digits, n := 0, 0, 0
	for i := range min(len(s), len("255.255.255.255:")) {
		switch c := s[i]; {
		case '0' <= c && c <= '9' && (octet > 0 || digits == 0):
			octet = 10*octet + int(c-'0')
			digits++
		case (c == '.' && n < 3 || c == ':' && n == 3) && digits > 0 && octet <= 255:
			quad[n] = byte(octet)
			octet, digits, n = 0, 0, n+1
			if c == ':' && isPort(s[i:]) {
				return netip.AddrFrom4(quad)
			}
		default:
			return parseNode(s)
		}
	}
	return parseNode(s)
}

// parseNode parses an address, with or without brackets and a port. It returns the zero
// Addr for anything else.
func parseNode(s string) netip.Addr {
	host, port, bracketed := s, "", strings.HasPrefix(s, "[")
	if bracketed {
		end := strings.IndexByte(s, ']')
		if end < 0 {
			return netip.Addr{}
		}
		host, port = s[1:end], s[end+1:]
	} else if colon := strings.IndexByte(s, ':'); colon >= 0 && colon == strings.LastIndexByte(s, ':') {
		host, port = s[:colon], s[colon:]
	}
	if port != "" && !isPort(port) {
		return netip.Addr{}
	}
	// netip would accept a newline in a zone.
	host, zone, zoned := strings.Cut(host, "%")
	addr, err := netip.ParseAddr(host)
	if err != nil || (bracketed || zoned) && !addr.Is6() || zoned && zone == "" {
		return netip.Addr{}
	}
	return addr.Unmap()
}

// isPort reports whether s is a colon and a port or an obfuscated port (RFC 7239, section
// 6).
func isPort(s string) bool {
	s, ok := strings.CutPrefix(s, ":")
	if !ok {
		return false
	}
	if strings.HasPrefix(s, "_") {
		return len(s) > 1 && httptoken.Valid(s)
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return len(s) >= 1 && len(s) <= 5
}

// trim removes the blanks that may surround an element.
func trim(s string) string { return strings.Trim(s, " \t") }
