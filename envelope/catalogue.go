package envelope

import (
	"maps"
	"net/http"
	"strings"

	"github.com/usher-go/usher"
)

// A Catalogue maps the neutral codes of errors and replies to the statuses, codes and
// texts that a service has documented. The zero value changes nothing.
//
// An empty field of an entry keeps the value of the response. If the code of a response
// is listed, the entry for the code takes precedence over the response, and the response
// over the entry for its status. If the code is not listed, the entry for the status
// takes precedence over the response. If the response has no code, its own message takes
// precedence over the entry for the status.
type Catalogue struct {
	// Codes are the entries by code. An empty Type or Documentation means that for the
	// status.
	Codes map[string]Entry
	// Statuses are the entries by status, after Codes has been applied.
	Statuses map[int]Entry
}

// An Entry is what a [Catalogue] lists for one code or status.
type Entry struct {
	// Status replaces the HTTP status, in Codes only: that of an error with 400 to 599,
	// that of a success with 200 to 299. Zero keeps the status.
	Status int
	// Code, Type and Message replace those of the response.
	Code, Type, Message string
	// Documentation is the URL of a page for people who get the error. It is the "doc_url"
	// of most shapes, and the type of problem details that have no other.
	Documentation string
}

func (c Catalogue) clone() Catalogue {
	return Catalogue{Codes: maps.Clone(c.Codes), Statuses: maps.Clone(c.Statuses)}
}

// apply completes resp from the catalogue. Its Status, Code and Message have been set
// to those of the error or the reply.
func (c *Catalogue) apply(resp *Response) {
	if len(c.Codes) > 0 || len(c.Statuses) > 0 {
		c.replace(resp)
	}
	if resp.Message == "" {
		resp.Message = statusText(resp.Status)
	}
	if resp.Code == "" && resp.Status >= 400 {
		resp.Code = statusCode(resp.Status)
	}
}

// replace replaces values of resp with those that are listed.
func (c *Catalogue) replace(resp *Response) {
	entry, listed := c.Codes[resp.Code]
	if failed := resp.Status >= 400; entry.Status != 0 && failed == (entry.Status >= 400) {
		resp.Status = entry.Status
	}
	of := c.Statuses[resp.Status]
	switch {
	case listed:
		resp.Code = first(entry.Code, resp.Code)
		resp.Message = first(entry.Message, resp.Message, of.Message)
	case resp.Code == "":
		resp.Code = of.Code
		resp.Message = first(resp.Message, of.Message)
	default:
		resp.Code = first(of.Code, resp.Code)
		resp.Message = first(of.Message, resp.Message)
	}
	resp.Type = first(entry.Type, of.Type)
	resp.Documentation = first(entry.Documentation, of.Documentation)
}

func first(texts ...string) string {
	for _, s := range texts {
		if s != "" {
			return s
		}
	}
	return ""
}

func statusText(status int) string {
	if text := http.StatusText(status); text != "" {
		return text
	}
	if status >= 400 {
		return "Error"
	}
	return "OK"
}

// statusCode returns the code of an error that has none: the text of its status
// in snake case.
func statusCode(status int) string {
	switch status {
	case http.StatusInternalServerError:
		return usher.CodeInternal
	case http.StatusRequestEntityTooLarge:
		return usher.CodePayloadTooLarge
	case http.StatusNotFound:
		return usher.CodeNotFound
	case http.StatusMethodNotAllowed:
		return usher.CodeMethodNotAllowed
	default:
		return strings.Map(func(c rune) rune {
			switch {
			case 'A' <= c && c <= 'Z':
				return c | 0x20
			case c == ' ', c == '-':
				return '_'
			case c == '\'':
				return -1
			}
			return c
		}, statusText(status))
	}
}
