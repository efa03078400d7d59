package service

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"regexp"
	"time"

	"outpost.run/outpost/sandbox"
)

// Caller is who makes a call.
type Caller struct {
	ID        string // of the credential; "root" is the first one
	Name      string // of the credential
	Namespace string
	Role      sandbox.Role
	RateLimit *int // calls a minute; nil: the server's
	ExpiresAt *sandbox.Time
}

// May says whether the caller may act with that role in that namespace.
func (c Caller) May(role sandbox.Role, namespace string) bool {
	return c.Role == sandbox.Operator || c.Namespace == namespace && c.Role.Includes(role)
}

const (
	rootID           = "root"
	defaultNamespace = "default"
	secretBytes      = 32
)

var namespaceForm = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

// ValidNamespace says whether a namespace can have that name.
func ValidNamespace(name string) bool { return namespaceForm.MatchString(name) }

// ByToken finds whose token it is. Errors: Unauthorized.
func (s *Service) ByToken(ctx context.Context, token string) (Caller, error) {
	hash := sha256.Sum256([]byte(token))
	if subtle.ConstantTimeCompare(hash[:], s.root[:]) == 1 {
		return Caller{ID: rootID, Name: rootID, Namespace: defaultNamespace, Role: sandbox.Operator}, nil
	}
	return s.byHash(ctx, hash, TokenKind, "")
}

// ByKey finds whose API key it is. Errors: Unauthorized.
func (s *Service) ByKey(ctx context.Context, name, secret string) (Caller, error) {
	return s.byHash(ctx, sha256.Sum256([]byte(secret)), KeyKind, name)
}

func (s *Service) byHash(ctx context.Context, hash [32]byte, kind, name string) (Caller, error) {
	c, err := s.store.CredentialByHash(ctx, hash)
	switch code := sandbox.CodeOf(err); {
	case code != "" && code != sandbox.NotFound:
		return Caller{}, err
	case code == sandbox.NotFound, c.Kind != kind, name != c.Name && kind == KeyKind, c.ExpiresAt != nil && !time.Now().Before(c.ExpiresAt.Time):
		return Caller{}, Unauthorized()
	}
	return Caller{ID: c.ID, Name: c.Name, Namespace: c.Namespace, Role: c.Role, RateLimit: c.RateLimit, ExpiresAt: c.ExpiresAt}, nil
}

// Unauthorized is the one answer to a credential that is missing, wrong, expired or deleted.
func Unauthorized() error {
	return sandbox.Errorf(sandbox.Unauthorized, nil, "send a valid credential: Authorization: Bearer <token>, or API-Key <name>$<secret>")
}

// Forbidden is the answer to a credential that is good, but not for this.
func Forbidden(why string) error { return sandbox.Errorf(sandbox.Forbidden, nil, "%s", why) }

var credentialName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

func checkCredentialName(name *string, faults *sandbox.Faults) {
	if name != nil && !credentialName.MatchString(*name) {
		faults.Add("name", "must be 1 to 64 letters, digits, dots, dashes and underscores that start with a letter or digit")
	}
}

// NewTicket is a text that nobody can guess, for what lives too shortly to be kept.
func NewTicket() string {
	text, _ := newSecret()
	return text
}

func newSecret() (string, [32]byte) {
	var b [secretBytes]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand ends the process instead
	secret := hex.EncodeToString(b[:])
	return secret, sha256.Sum256([]byte(secret))
}

func (s *Service) deleteCredential(ctx context.Context, id, kind, what string, mine func(Credential) bool) error {
	c, err := s.credential(ctx, id, kind, what, mine)
	if err != nil {
		return err
	}
	return s.store.DeleteCredential(ctx, c.ID)
}

// credential gives one that the caller may see. Errors: NotFound, the same for one that others have and for none.
func (s *Service) credential(ctx context.Context, id, kind, what string, mine func(Credential) bool) (Credential, error) {
	c, err := s.store.Credential(ctx, id)
	if code := sandbox.CodeOf(err); code == sandbox.NotFound || code == "" && (c.Kind != kind || !mine(c)) {
		return c, sandbox.Errorf(sandbox.NotFound, nil, "there is no such %s", what)
	}
	return c, err
}
