//! A page that draws in a browser.
