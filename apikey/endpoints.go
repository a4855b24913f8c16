package apikey

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/jsonbody"
)

func (h *handler) create(c *call) error {
	var template Key
	d, err := readBody(c.w, c.r, h.MaxBody, jsonbody.EmptyRefused)
	if err != nil {
		return err
	}
	d.Required("name", &template.Name)
	d.Optional("scopes", &template.Scopes)
	if !d.OptionalAs("level", &template.Level, levels) {
		template.Level = h.DefaultLevel
	}
	d.Optional("environment", &template.Environment)
	d.Optional("expires_at", &template.ExpiresAt)
	if err := bodyFault(d); err != nil {
		return err
	}
	template.Owner = c.owner
	var data any
	if _, _, err := h.Manager.createWith(c.r.Context(), c.by, template, h.issued(&data)); err != nil {
		return err
	}
	c.respond(http.StatusCreated, usher.CodeAPIKeyCreated, "API key created.", data)
	return nil
}

// issued returns a preview that sets the data of a response with the text of a key. The
// preview runs before the key is stored: if it failed later, the text would be lost.
func (h *handler) issued(data *any) preview {
	return func(k Key, secret Secret) (err error) {
		*data, err = show("HandlerConfig.IssuedView", func() any { return h.IssuedView(showable(k), secret) })
		return err
	}
}

// show returns the data of a response, which is certain to be encodable.
func show(name string, f func() any) (data any, err error) {
	err = callback(name, func() error {
		data = f()
		if _, err := json.Marshal(data); err != nil {
			return &usher.Error{
				Status: http.StatusInternalServerError,
				Code:   usher.CodeInternal,
				Cause:  fmt.Errorf("apikey: %s: %w", name, err),
			}
		}
		return nil
	})
	return data, err
}

func (h *handler) list(c *call) error {
	page := usher.Page{Number: 1, Limit: h.PageSize}
	if h.Unpaged {
		page.Limit = h.MaxPageSize
	} else {
		var faults []usher.Field
		// Far beyond any list, and far from overflow.
		const maxPage = 1 << 20
		number(c.r, "page", &page.Number, maxPage, &faults)
		number(c.r, "limit", &page.Limit, h.MaxPageSize, &faults)
		if len(faults) > 0 {
			return usher.Invalid(faults...)
		}
	}
	keys, total, err := h.Manager.List(c.r.Context(), c.owner, (page.Number-1)*page.Limit, page.Limit)
	if err != nil {
		return err
	}
	for i := range keys {
		keys[i] = showable(keys[i])
	}
	data, err := show("HandlerConfig.ListView", func() any { return h.ListView(keys) })
	if err != nil {
		h.Manager.failed(c.r.Context(), "list", err)
		return err
	}
	reply := usher.Reply{Code: usher.CodeAPIKeysListed, Message: "API keys found.", Data: data}
	if !h.Unpaged {
		page.Total = total
		reply.Page = &page
	}
	usher.Respond(c.w, c.r, reply)
	return nil
}

// number sets n to the query parameter name, or to most if that is lower. Without the
// parameter n stays as it is.
func number(r *http.Request, name string, n *int, most int, faults *[]usher.Field) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return
	}
	got, err := strconv.Atoi(text)
	if errors.Is(err, strconv.ErrRange) && got > 0 {
		err = nil
	}
	if err != nil || got < 1 {
		*faults = append(*faults, usher.Field{Name: name, Message: "'" + name + "' must be a whole number from 1."})
		return
	}
	*n = min(got, most)
}

func (h *handler) find(c *call) error {
	k, err := h.Manager.Find(c.r.Context(), c.owner, c.id)
	if err != nil {
		return err
	}
	data, err := show("HandlerConfig.KeyView", func() any { return h.KeyView(showable(k)) })
	if err != nil {
		h.Manager.failed(c.r.Context(), "find", err)
		return err
	}
	c.respond(http.StatusOK, usher.CodeAPIKeyFound, "API key found.", data)
	return nil
}

func (h *handler) update(c *call) error {
	d, err := readBody(c.w, c.r, h.MaxBody, jsonbody.EmptyRefused)
	if err != nil {
		return err
	}
	var to Key
	name := d.Optional("name", &to.Name)
	scopes := d.Optional("scopes", &to.Scopes)
	level := d.OptionalAs("level", &to.Level, levels)
	expires := d.Optional("expires_at", &to.ExpiresAt)
	if err := bodyFault(d); err != nil {
		return err
	}
	var data any
	_, err = h.Manager.updateWith(c.r.Context(), c.by, c.owner, c.id, func(k *Key) {
		if name {
			k.Name = to.Name
		}
		if scopes {
			k.Scopes = to.Scopes
		}
		if level {
			k.Level = to.Level
		}
		if expires {
			k.ExpiresAt = to.ExpiresAt
		}
	}, func(k Key, _ Secret) (err error) {
		data, err = show("HandlerConfig.KeyView", func() any { return h.KeyView(showable(k)) })
		return err
	})
	if err != nil {
		return err
	}
	c.respond(http.StatusOK, usher.CodeAPIKeyUpdated, "API key updated.", data)
	return nil
}

func (h *handler) rotate(c *call) error {
	d, err := readBody(c.w, c.r, h.MaxBody, jsonbody.EmptySameOrigin)
	if err != nil {
		return err
	}
	grace := h.Grace
	var seconds int32
	if d.Optional("grace_seconds", &seconds) {
		grace = time.Duration(seconds) * time.Second
	}
	if err := bodyFault(d); err != nil {
		return err
	}
	var data any
	if _, _, err := h.Manager.rotateWith(c.r.Context(), c.by, c.owner, c.id, grace, h.issued(&data)); err != nil {
		return err
	}
	c.respond(http.StatusCreated, usher.CodeAPIKeyRotated, "API key rotated.", data)
	return nil
}

func (h *handler) revoke(c *call) error {
	if _, err := h.Manager.Revoke(c.r.Context(), c.by, c.owner, c.id); err != nil {
		return err
	}
	c.respond(http.StatusOK, usher.CodeAPIKeyRevoked, "API key revoked.", nil)
	return nil
}

func (c *call) respond(status int, code, message string, data any) {
	usher.Respond(c.w, c.r, usher.Reply{Status: status, Code: code, Message: message, Data: data})
}

// keyView is a key as [NewHandler] shows it by default.
type keyView struct {
	ID          string      `json:"id"`
	Name        string      `json:"name"`
	Prefix      string      `json:"prefix"`
	LastFour    string      `json:"last_four"`
	Scopes      []string    `json:"scopes"`
	Level       usher.Level `json:"level"`
	Environment *string     `json:"environment"`
	CreatedAt   time.Time   `json:"created_at"`
	UpdatedAt   time.Time   `json:"updated_at"`
	ExpiresAt   *time.Time  `json:"expires_at"`
	RevokedAt   *time.Time  `json:"revoked_at"`
	LastUsedAt  *time.Time  `json:"last_used_at"`
	ReplacedBy  *string     `json:"replaced_by"`
}

type issuedView struct {
	APIKey string `json:"api_key"`
	Key    any    `json:"key"`
}

// showable returns k with times that every encoder accepts. A store may hold a key that
// was issued under other rules; one such key must not make the whole list fail.
func showable(k Key) Key {
	for _, t := range []*time.Time{&k.CreatedAt, &k.UpdatedAt, &k.ExpiresAt, &k.DisabledAt, &k.RevokedAt, &k.LastUsedAt} {
		switch {
		case t.After(latest):
			*t = latest
		case t.Year() < 1:
			*t = time.Time{}
		}
	}
	return k
}

func viewKey(k Key) any {
	scopes := k.Scopes
	if scopes == nil {
		scopes = []string{}
	}
	return keyView{
		ID:          k.ID,
		Name:        k.Name,
		Prefix:      k.Prefix,
		LastFour:    k.LastFour,
		Scopes:      scopes,
		Level:       k.Level,
		Environment: nullable(k.Environment),
		CreatedAt:   k.CreatedAt,
		UpdatedAt:   k.UpdatedAt,
		ExpiresAt:   nullable(k.ExpiresAt),
		RevokedAt:   nullable(k.RevokedAt),
		LastUsedAt:  nullable(k.LastUsedAt),
		ReplacedBy:  nullable(k.ReplacedBy),
	}
}

func viewList(keys []Key) any {
	list := make([]any, 0, len(keys))
	for _, k := range keys {
		list = append(list, viewKey(k))
	}
	return list
}

// nullable returns nil for a zero value, which JSON writes as null.
func nullable[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
}
