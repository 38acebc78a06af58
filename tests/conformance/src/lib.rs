//! Checks that a provider keeps the contract, sentence by sentence.
