// Package unrendered has responses before they get the shape of the service: the form of
// what a handler has passed to usher.Respond or usher.Fail. A middleware that stores
// responses stores this form, so that a replay gets the metadata of its own request.
package unrendered

// A Source knows how the response to one request was made.
type Source interface {
	// Form returns the form of the response with this status and body, or nil if it is
	// stored as it is: it was not shaped, or it was changed afterwards. The form may share
	// the memory of body.
	Form(status int, body []byte) *Form
	// Shaped reports whether a response with this status that is stored as it is must not
	// get a shape (again) when it is replayed.
	Shaped(status int) bool
}

// A Form is a response before it gets its shape.
type Form struct {
	Kind Kind
	// Late is set if the handler had sent the status itself before it passed on the rest.
	Late bool
	// Status, Code and Message are those of the reply or the failure, before a catalogue
	// has replaced them. A [Message] has only the last.
	Status        int
	Code, Message string

	// Page and Data are those of a [Reply]. The data is encoded; nil means none.
	Page *Page
	Data []byte

	// Type, Param, Fields and Details are those of a [Failure]. The details are encoded;
	// nil means none. Members is set if they were a map[string]any.
	Type, Param string
	Fields      []Field
	Details     Raw
	Members     bool
}

// A Kind is what a [Form] was made from.
type Kind uint8

const (
	// Reply is a usher.Reply.
	Reply Kind = iota
	// Failure is the public part of a usher.Error.
	Failure
	// Message is the message of a success whose body the handler wrote itself.
	Message
)

// A Page is a usher.Page.
type Page struct{ Number, Limit, Total int }

// A Field is a usher.Field.
type Field struct {
	Name    string `json:"field"`
	Message string `json:"message"`
}

// A Raw is encoded JSON. An envelope writes it as it is.
type Raw []byte

// MarshalJSON returns r itself, for other encoders.
func (r Raw) MarshalJSON() ([]byte, error) { return r, nil }

// UnmarshalJSON keeps a copy of b.
func (r *Raw) UnmarshalJSON(b []byte) error {
	*r = append(Raw(nil), b...)
	return nil
}
